"""A model, images and what a trainer is given as objects, told as the settings of the command `fit`."""

from collections.abc import Mapping
from functools import partial
from inspect import signature
from types import FunctionType
from typing import Any

import torch
from jsonargparse import Namespace
from torch import nn

import kth_lightning
from kth_lightning.cli.settings import LINKS
from kth_lightning.data.module import ImageData
from kth_lightning.errors import InputError
from kth_lightning.io.class_path import class_path
from kth_lightning.io.kept_settings import is_plain, plain
from kth_lightning.models import Classifier
from kth_lightning.models.optimizer import make_optimizer

_REMARK = """# Made from Python: the first weights came with the model that was given.
# This file alone repeats the run where that was made right after lightning.seed_everything({seed}).
"""

_REMARK_OF_OBJECTS = """# What stands in <> was an object that no class path makes: Python alone can give it again.
"""


class Objects:
    """Objects that take the place of what a configuration names.

    Args:
        model: The model.
        data: The images.
        trainer: Arguments of the trainer.

    Attributes:
        settings: What can be told as the command's settings.

    Raises:
        InputError: One is of a class that `fit` cannot take, or the model was made for other images.
    """

    def __init__(self, model: Classifier, data: ImageData, trainer: Mapping[str, Any]) -> None:
        if not isinstance(model, Classifier):
            raise InputError(f"fit takes a kth_lightning.Classifier as its model, and was given a {class_path(model)}")
        if type(data) is not ImageData:
            raise InputError(f"fit takes a kth_lightning.ImageData as its data, and was given a {class_path(data)}")
        self.model = model
        self.data = data
        self.require_agreement(data)
        self._trainer = {name: value for name, value in trainer.items() if not is_plain(value)}
        self._told: dict[tuple[str, ...], str | list[str]] = {}
        self.settings: dict[str, Any] = {
            "seed_everything": data.seed,
            "trainer": {name: plain(value) for name, value in trainer.items() if name not in self._trainer},
            "model": {
                "class_path": _public_path(type(model)),
                "init_args": self._as_settings(model, "model", "init_args"),
            },
            "data": self._as_settings(data, "data"),
        }
        self._told |= {("trainer", name): _by_class(value) for name, value in self._trainer.items()}

    def _as_settings(self, part: Classifier | ImageData, *position: str) -> dict[str, Any]:
        """Tell what an object was made with, and note what has no such form."""
        defaults = signature(type(part).__init__).parameters
        settings = {}
        for name, value in part.arguments.items():
            followed = name == "seed" if part is self.data else name in LINKS
            if followed or (name in defaults and value is defaults[name].default):
                continue
            try:
                settings[name] = part.settings[name] if name in part.settings else _form(value)
            except _NoFormError:
                self._told[*position, name] = _describe(value, name)
        return settings

    @property
    def remark(self) -> str:
        """Return lines of comment that say what the settings leave open."""
        return _REMARK.format(seed=self.data.seed) + (_REMARK_OF_OBJECTS if self._told else "")

    def described_in(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Describe objects that have no other form in the settings, by which runs are told apart."""
        for (*groups, name), text in self._told.items():
            group = settings
            for key in groups:
                group = group.setdefault(key, {})
            group[name] = text
        return settings

    def put_into(self, config: Namespace) -> Namespace:
        """Return a configuration with the trainer's objects in it."""
        made = config.clone()
        for name, value in self._trainer.items():
            made.fit.trainer[name] = list(value) if isinstance(value, list | tuple) else value
        return made

    def make_images(self, settings: Namespace) -> ImageData:
        """Return the images that were given, made again where the settings want another split of them."""
        wanted = {name: settings[name] for name in ("splits", "num_folds", "fold", "ignore_new")}
        if all(self.data.settings[name] == value for name, value in wanted.items()):
            return self.data
        return ImageData(**self.data.arguments | wanted)

    def require_agreement(self, data: ImageData) -> None:
        """Refuse a model that was made for other images.

        Raises:
            InputError: It was.
        """
        weights = data.class_weights
        linked = {name: getattr(data, name) for name in LINKS}
        linked["class_weights"] = (
            None if weights is None else torch.tensor(weights).tolist()
        )  # to float32, as the model's
        for name, theirs in linked.items():
            ours = getattr(self.model, name)
            if isinstance(ours, torch.Tensor):
                ours = ours.tolist()
            if (list(ours) if isinstance(ours, tuple) else ours) != theirs:
                raise InputError(
                    f"the {type(self.model).__name__} was made with a {name} that is not that of the images; give it "
                    f"{name}=data.{name}"
                )


class _NoFormError(Exception):
    """Say that an object cannot be told as class path and settings."""


def _form(value: Any) -> Any:
    """Tell a class, a function, or either with arguments filled in, as a configuration names it."""
    if is_plain(value):
        return plain(value)
    if isinstance(value, Mapping):
        return {name: _form(item) for name, item in value.items()}
    if isinstance(value, partial) and not value.args and is_plain(value.keywords) and isinstance(value.func, type):
        return _form(value.func) | {"init_args": plain(value.keywords)}
    if isinstance(value, type | FunctionType) and "<" not in value.__qualname__:
        return {"class_path": _public_path(value)} if isinstance(value, type) else class_path(value)
    raise _NoFormError


def _public_path(named: type) -> str:
    """Return the path by which people import a class."""
    name = named.__name__
    return f"kth_lightning.{name}" if getattr(kth_lightning, name, None) is named else class_path(named)


def _describe(value: Any, name: str) -> str:
    """Describe an object by its class and its plain attributes, and an optimiser by what is made by it."""
    if name == "optimizer":
        value = make_optimizer(value, [{"params": [nn.Parameter(torch.zeros(1, 1))]}])
    attributes = value.defaults if name == "optimizer" else getattr(value, "__dict__", {})
    shown = {key: item for key, item in attributes.items() if key[0] != "_" and is_plain(item) and key != "training"}
    return f"<{class_path(value)}({', '.join(f'{key}={item!r}' for key, item in shown.items())})>"


def _by_class(value: Any) -> str | list[str]:
    """Describe what a trainer is given, whose attributes change while it works."""
    return [f"<{class_path(item)}>" for item in value] if isinstance(value, list | tuple) else f"<{class_path(value)}>"
