"""What an object's class was called with, and what of that is plain enough for a file."""

import inspect
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Self

import numpy as np


class KeepsSettings:
    """Mixin that remembers what a class was called with, its own defaults included.

    Attributes:
        arguments: By name; calling the class with them makes such an object again.
        settings: Those that are numbers, text, None, or lists and dicts of them: a checkpoint of them is read without
            executing anything. An optimiser, a loss or another object is left out, for prediction needs none.
    """

    arguments: dict[str, Any]
    settings: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Look at the arguments before any `__init__` of the subclasses changes or passes them on."""
        self = super().__new__(cls)
        # Before nn.Module's own __init__, whose __setattr__ would miss what that sets up.
        arguments = _given(cls.__init__, (self, *args), kwargs)
        object.__setattr__(self, "arguments", arguments)
        object.__setattr__(
            self, "settings", {name: plain(value) for name, value in arguments.items() if is_plain(value)}
        )
        return self


def _given(init: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    signature = inspect.signature(init)
    try:
        bound = signature.bind_partial(*args, **kwargs)
    except TypeError:  # the call itself will say so
        return {}
    bound.apply_defaults()
    _, *names = bound.arguments
    arguments: dict[str, Any] = {}
    for name in names:
        value, kind = bound.arguments[name], signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL and not value:
            continue  # no argument of this name could be given again
        arguments |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return arguments


def is_plain(value: Any) -> bool:
    """Tell whether a value is made of numbers, text, None, lists and dicts alone."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str | int | np.integer) and is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str | PurePath | np.bool_ | np.integer | np.floating)


def plain(value: Any) -> Any:
    """Rebuild a value of Python's own types: numpy's numbers and enumerations pass for them, and are none in a file."""
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    for kind, numpys in ((bool, np.bool_), (int, np.integer), (float, np.floating)):
        if isinstance(value, kind | numpys):
            return kind(value)
    if value is None:
        return value
    return "".join(value) if isinstance(value, str) else str(value)  # an enumeration's str() is its name
