"""Names that a network's layers may not have, since its class uses them."""

from typing import Any

from torch import nn

from kth_lightning.errors import InputError

_MEANT = {"trunk", "preprocess", "loss"}
"""Modules of `Classifier` that a subclass may set."""


def taken_names(model: nn.Module) -> frozenset[str]:
    """Return the names of all that a network has, apart from those that a subclass may set."""
    return frozenset(dir(model)) - _MEANT


def require_free_name(base: type, model: nn.Module, taken: frozenset[str], name: str, value: Any) -> None:
    """Refuse a layer under a name that is taken.

    Torch keeps layers apart from other attributes: a method of the same name wins, and the layer is never called.
    Another value would take the place of a method, or of a setting.

    Raises:
        InputError: The name is taken.
    """
    if name not in taken:
        return
    kind = type(model)
    method = callable(getattr(kind, name, None)) and not callable(value)
    if method or isinstance(value, nn.Module | nn.Parameter | nn.Buffer):
        owner = kind if hasattr(kind, name) and not hasattr(base, name) else base
        raise InputError(
            f"--model: {kind.__name__} sets self.{name}, a name that {owner.__name__} uses otherwise; choose another"
        )
