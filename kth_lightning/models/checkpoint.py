"""Load a trained classifier from its completed checkpoint alone."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import torch
from torch import Tensor

import kth_lightning.models
from kth_lightning.data.square import INTERPOLATIONS, MAX_SIZE, MIN_SIZE, RESIZES
from kth_lightning.errors import InputError
from kth_lightning.models import Classifier
from kth_lightning.models.saving import FORMAT, complete
from kth_lightning.models.weights import MissingWeightsError


def _are_weights(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str)
        and isinstance(item, Tensor)
        and item.layout == torch.strided
        and item.device.type == "cpu"
        for name, item in value.items()
    )


def _are_figures(value: Any) -> bool:
    return _are_weights(value) and not any(item.is_complex() for item in value.values())


def _are_settings(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    names, value_range = value.get("class_names") or [], value.get("value_range")
    named = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return named and (value_range is None or _is_range(value_range))


_PARTS: dict[str, Callable[[Any], bool]] = {
    "format": lambda value: type(value) is int and value > 0,
    "class_path": lambda value: isinstance(value, str) and bool(re.fullmatch(r"[\w.<>]{1,300}", value)),
    "weights_sha256": lambda value: isinstance(value, str),
    "state_dict": _are_weights,
    "hyper_parameters": _are_settings,
    "images": lambda value: value is None or (_are_figures(value) and value.keys() == {"train", "val", "test"}),
    "files": lambda value: value is None or (_are_figures(value) and value.keys() == {"train", "val"}),
    "inherited": lambda value: value is None or (_are_figures(value) and value.keys() == {"train", "val"}),
    "novelty": lambda value: value is None or _are_figures(value),
    "validation": lambda value: value is None or _are_figures(value),
    "pytorch-lightning_version": lambda value: isinstance(value, str) and bool(re.match(r"\d+\.\d+", value)),
    "loops": lambda value: isinstance(value, dict),
    "callbacks": lambda value: isinstance(value, dict),
    "optimizer_states": lambda value: isinstance(value, list),
    "lr_schedulers": lambda value: isinstance(value, list),
}
"""What every checkpoint of ours has, and what Lightning reads without a look at its kind."""


def load_classifier(
    path: str | Path, device: torch.device | str = "cpu", model_class: type[Classifier] | None = None
) -> Classifier:
    """Build the classifier that a checkpoint holds, in evaluation mode.

    A run's best.ckpt needs neither data nor pretrained weights: it carries the trunk, the class names, the size of the
    images and the temperature. Nothing in a checkpoint is executed, and no name in it is imported.

    Args:
        path: A `checkpoints/best.ckpt`, or one that Lightning's Trainer wrote.
        device: Where to put the classifier.
        model_class: The classifier's class, where that comes from outside kth_lightning: its code is trusted then.

    Raises:
        InputError: The file is missing, no checkpoint of ours, cut short, or of another class, or the weights that its
            trunk came from cannot be had.
    """
    checkpoint = read_checkpoint(path)
    kind = _class_of(path, checkpoint, model_class)
    state = {name: value for name, value in checkpoint["state_dict"].items() if not name.startswith("loss.")}
    settings = checkpoint["hyper_parameters"]
    if not checkpoint["weights_sha256"] or any(name.startswith("trunk.") for name in state):
        settings = kind.for_prediction(settings)
    try:
        model = kind(**settings)
        complete(model, checkpoint | {"state_dict": state})
        model.load_state_dict(state)
        _check(model)
    except MissingWeightsError as error:
        raise InputError(
            f"--ckpt_path: {path} is there to go on with a training and lacks the frozen weights, which best.ckpt has: "
            f"{error}"
        ) from None
    except Exception as error:  # whatever the first wrong value makes them stumble over
        reason = " ".join(str(error).split())[:200]
        code = "kth_lightning" if model_class is None else kind.__name__
        raise InputError(
            f"--ckpt_path: {path} does not fit this version of {code} ({reason}); use the one that wrote it, or "
            "another checkpoint"
        ) from None
    _require_numbers(path, model)
    return model.eval().requires_grad_(False).to(device)


def _class_of(path: str | Path, checkpoint: dict[str, Any], given: type[Classifier] | None) -> type[Classifier]:
    """Return the class of a checkpoint's classifier: the one given, or ours of its name."""
    name = checkpoint["class_path"]
    short = name.rpartition(".")[2]
    if given is not None:
        if given.__name__ != short:
            raise InputError(f"--model_class: {path} holds a {name}, not a {given.__name__}; give its class")
        return given
    if not name.startswith("kth_lightning."):
        raise InputError(
            f"--ckpt_path: {path} holds a {name}, a class from outside kth_lightning; if you trust its code, say so "
            f"with --model_class {name} (in Python: model_class={short})"
        )
    kind = getattr(kth_lightning.models, short, None)
    if not (isinstance(kind, type) and issubclass(kind, Classifier)):
        raise InputError(f"--ckpt_path: {path} was made by a newer kth_lightning ({name}); update")
    return kind


def _require_numbers(path: str | Path, model: Classifier) -> None:
    """Refuse weights that are NaN or infinite, and would give such figures; a buffer, such as a mask, may be.

    Raises:
        InputError: There are some.
    """
    buffers = model.named_buffers()
    measured = [item for name, item in buffers if name.rpartition(".")[2] in ("running_mean", "running_var")]
    if not all(item.isfinite().all() for item in (*model.parameters(), *measured)):
        raise InputError(
            f"--ckpt_path: {path} has weights that are not finite numbers, so its training failed; train again with a "
            "smaller learning rate"
        )


def _check(model: Classifier) -> None:
    """Refuse what predictions depend on and building the model does not.

    Raises:
        ValueError: A setting is of another kind, or out of its range.
    """
    if len(set(model.class_names)) != model.num_classes:
        raise ValueError(f"{model.num_classes} classes have the names {model.class_names}")
    if not isinstance(model.image_size, int) or not MIN_SIZE <= model.image_size <= MAX_SIZE:
        raise ValueError(f"an image_size of {model.image_size}")
    if model.interpolation not in INTERPOLATIONS:
        raise ValueError(f"an interpolation {model.interpolation}")
    if model.resize not in RESIZES:
        raise ValueError(f"a resize {model.resize}")
    if not math.isfinite(model.temperature):
        raise ValueError(f"a temperature of {model.temperature}")


def _is_range(value: Any) -> bool:
    numbers = isinstance(value, list) and all(isinstance(item, int | float) and math.isfinite(item) for item in value)
    return numbers and len(value) == 2 and value[0] < value[1]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of ours onto the CPU, without running anything in it.

    Raises:
        InputError: The file is missing, cut short, damaged, or another program's.
    """
    if not Path(path).is_file():
        raise InputError(f"--ckpt_path: there is no file {path}; give a run's checkpoints/best.ckpt")
    try:
        checkpoint = torch.load(path, weights_only=True, mmap=True, map_location="cpu") if _is_whole(path) else None
    except Exception:  # the readers raise whatever the broken bytes make them stumble over
        checkpoint = None
    newer = checkpoint.get("format") if isinstance(checkpoint, dict) else None
    if type(newer) is int and newer > FORMAT:
        raise InputError(
            f"--ckpt_path: {path} was written by a newer kth_lightning (its format is {newer}, and this one knows "
            f"{FORMAT}); update kth_lightning"
        )
    if not isinstance(checkpoint, dict) or not all(fits(checkpoint.get(name)) for name, fits in _PARTS.items()):
        raise InputError(f"--ckpt_path: {path} is not a checkpoint of kth_lightning, or is damaged; give another")
    return checkpoint


def _is_whole(path: str | Path) -> bool:
    """Tell whether a file's parts have the checksums that torch wrote and does not look at."""
    with ZipFile(path) as file:
        parts = file.infolist()
        plain = all(part.compress_type == ZIP_STORED for part in parts)  # as torch writes them; others may be bombs
        return plain and sum(part.file_size for part in parts) <= Path(path).stat().st_size and file.testzip() is None
