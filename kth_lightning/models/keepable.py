"""What a checkpoint can keep of a classifier: the rest is refused before any work is done."""

import inspect
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kth_lightning.errors import InputError
from kth_lightning.io.kept_settings import is_plain

if TYPE_CHECKING:
    from kth_lightning.models.base import Classifier

_FOR_TRAINING = ("optimizer", "lr_scheduler", "loss", "metrics")
"""Settings that prediction does without."""


def require_kept_settings(model: "Classifier") -> None:
    """Refuse settings that a checkpoint cannot keep: the network would be built again without them.

    A class of one's own is their usual kind. Its path is not kept, for no name in a checkpoint is imported.

    Raises:
        InputError: There is one.
    """
    parameters = inspect.signature(type(model).__init__).parameters
    for name, value in model.arguments.items():
        known = parameters.get(name)
        if known is not None and known.kind is inspect.Parameter.VAR_POSITIONAL:
            raise InputError(
                f"--model: {type(model).__name__} was given settings by position in its *{name}, which a checkpoint "
                "cannot keep; give them by name"
            )
        if name in _FOR_TRAINING or is_plain(value) or (known is not None and value is known.default):
            continue
        raise InputError(
            f"--model.{name}: a checkpoint keeps a network's settings as numbers, text, lists and dicts, and without "
            f"this one predictions would come from another network; let __init__ of {type(model).__name__} take such a "
            "value in its place, for example a name that it looks up"
        )


def require_kept_state(model: "Classifier") -> None:
    """Refuse weights and buffers that a checkpoint cannot keep.

    Raises:
        InputError: There are some.
    """
    name = type(model).__name__
    for key, value in (*model.named_parameters(), *model.named_buffers()):
        if isinstance(value, nn.UninitializedParameter | nn.UninitializedBuffer):
            raise InputError(
                f"--model: {name} has a lazy layer ({key.rpartition('.')[0]}), whose size is not known before it is "
                "used; give it its number of inputs, as in nn.Conv2d and nn.Linear"
            )
    for key, item in model.state_dict().items():
        if not isinstance(item, Tensor):
            raise InputError(
                f"--model: {name} has a state that is no tensor ({key}, from get_extra_state), which a checkpoint "
                "cannot keep; make it a buffer, or a setting"
            )
        if item.layout != torch.strided:
            raise InputError(
                f"--model: {name} has a sparse tensor ({key}), which a checkpoint cannot keep; make it a dense one, or "
                "register its buffer with persistent=False"
            )
