"""Import paths: from a name such as mine.MySource to what it names, or one sentence that says what is near."""

import importlib
import pkgutil
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from kth_lightning.errors import InputError


def class_path(part: object) -> str:
    """Return the import path of an object's class, or of the class or function itself."""
    named = part if hasattr(part, "__qualname__") else type(part)
    return f"{named.__module__}.{named.__qualname__}"


def import_part(path: str, flag: str) -> Any:
    """Import what a path names.

    Args:
        path: Module and name, such as "mine.MySource".
        flag: The setting that has the path, for the message.

    Raises:
        InputError: There is no such module or name in it (the sentence has the nearest), or its code fails.
    """
    module_name, _, name = path.rpartition(".")
    module = _import_module(module_name or name, path, flag)
    if not module_name:
        raise InputError(f"{flag} {path}: this is a module; name what is meant in it, such as {path}.MyClass")
    if not hasattr(module, name):
        near = get_close_matches(name, dir(module), n=1)
        raise InputError(
            f"{flag} {path}: the module {module_name} has no {name!r}; "
            + (f"did you mean {module_name}.{near[0]}?" if near else "check the name")
        )
    return getattr(module, name)


def _import_module(name: str, path: str, flag: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failed(name, path, flag, error) from None  # a module that it imports is missing
        parent, _, missing = error.name.rpartition(".")
        places = importlib.import_module(parent).__path__ if parent else None
        near = get_close_matches(missing, [item.name for item in pkgutil.iter_modules(places)], n=1)
        way = f"did you mean {near[0]}?" if near else "start the command in its folder, or put that on PYTHONPATH"
        raise InputError(f"{flag} {path}: there is no module {error.name!r}; {way}") from None
    except Exception as error:
        raise _failed(name, path, flag, error) from None


def _failed(name: str, path: str, flag: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(f"{flag} {path}: importing {name} fails ({type(error).__name__}: {reason}); correct it")
