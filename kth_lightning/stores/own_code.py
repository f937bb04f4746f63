"""The code that classes and functions are made of: files of modules, and of what these import."""

import ast
import errno
import os
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder
from importlib.util import find_spec, resolve_name
from itertools import accumulate
from pathlib import Path

_INSTALLED = {"site-packages", "dist-packages"}
"""Folders of installed packages."""


def code_of(modules: Iterable[str]) -> Iterator[bytes]:
    """Yield names, versions and files of modules, and of all modules of one's own that those of one's own import.

    Their order is always the same.

    Raises:
        FileNotFoundError: A module of one's own is in no file; its name is the error's file.
    """
    for name in sorted(_with_imports(modules)):
        package = sys.modules.get(name.partition(".")[0])
        yield f"{name} {getattr(package, '__version__', '')}".encode()
        if file := _file(name):
            yield file.read_bytes()
        elif is_own(name):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def is_own(module: str) -> bool:
    """Tell whether a module is neither installed nor of Python or this package, so that somebody may edit it."""
    package = module.partition(".")[0]
    if package in sys.stdlib_module_names or package == "kth_lightning":
        return False
    file = _file(module) or _file(package)
    return file is None or not _INSTALLED & set(file.parts)


def _with_imports(modules: Iterable[str]) -> set[str]:
    found: set[str] = set()
    ahead = list(modules)
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            file = _file(name) if is_own(name) else None
            if file and file.suffix == ".py":
                ahead += [one for one in _imported(name, file) if _file(one) and is_own(one)]
    return found


def _imported(module: str, file: Path) -> Iterator[str]:
    """Yield what may be modules among all that a module imports, in functions too."""
    package = module if file.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            paths = [item.name for item in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            paths = [f"{start}.{item.name}" for item in node.names]
        else:
            continue
        for path in paths:
            yield from accumulate(path.split("."), "{}.{}".format)


def _file(module: str) -> Path | None:
    """Return the file of a module, which is not imported for that; None where it has none."""
    loaded = sys.modules.get(module)
    name = getattr(loaded, "__file__", None) if loaded else _origin(module)
    return Path(name) if name and Path(name).is_file() else None


def _origin(module: str) -> str | None:
    package, *inner = module.split(".")
    try:
        spec = find_spec(package)
        for part in accumulate(inner, "{}.{}".format, initial=package):
            if spec and part != package:
                places = spec.submodule_search_locations
                spec = PathFinder.find_spec(part, places) if places else None
    except (ImportError, ValueError):
        return None
    return spec.origin if spec else None
