"""Private names of libraries are used where nothing public does the same, and each is still there."""

import argparse
import ast
import importlib
import pkgutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import jsonargparse
import pytest
import torch

import kth_lightning

PACKAGE = Path(kth_lightning.__file__).parent
READ = {
    "_actions": argparse.ArgumentParser,
    "_subcommands_action": jsonargparse.ArgumentParser,
    "_convolution_pointwise": torch.ops.mkldnn,
}
DOCUMENTED = {"_asdict", "_fields", "_replace"}
"""Public names of every named tuple, which begin so that no field is called alike."""

REPLACED = {"_proc_member": tarfile.TarInfo}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def nodes() -> Iterator[ast.AST]:
    for file in PACKAGE.rglob("*.py"):
        yield from ast.walk(ast.parse(file.read_text(encoding="utf-8")))


def modules() -> Iterator[ModuleType]:
    for info in pkgutil.walk_packages([str(PACKAGE)], "kth_lightning."):
        if not info.name.endswith("__main__"):
            yield importlib.import_module(info.name)


def test_no_other_private_name_is_read() -> None:
    defined, read, imported = set[str](), set[str](), set[str]()
    for node in nodes():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
        elif isinstance(node, ast.Attribute):
            (read if isinstance(node.ctx, ast.Load) else defined).add(node.attr)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] != "kth_lightning":
            imported.update(part for part in (node.module or "").split(".") + [item.name for item in node.names])
        elif isinstance(node, ast.Import):
            imported.update(part for item in node.names for part in item.name.split("."))
    assert {name for name in read if is_private(name)} - defined - DOCUMENTED == set(READ)
    assert {name for name in imported if is_private(name)} == set()


def test_no_other_private_method_is_replaced() -> None:
    replaced = set()
    for module in modules():
        for kind in vars(module).values():
            if isinstance(kind, type) and kind.__module__ == module.__name__:
                foreign = [base for base in kind.__mro__ if not base.__module__.startswith("kth_lightning")]
                own = {name for name, value in vars(kind).items() if is_private(name) and callable(value)}
                replaced |= {name for name in own if any(name in vars(base) for base in foreign)}
    assert replaced == set(REPLACED)


@pytest.mark.parametrize(("name", "owner"), REPLACED.items(), ids=str)
def test_libraries_still_have_what_is_replaced(name: str, owner: type) -> None:
    assert callable(getattr(owner, name))


def test_parsers_still_have_what_is_read() -> None:
    parser, fit = jsonargparse.ArgumentParser(), jsonargparse.ArgumentParser()
    fit.add_argument("--data.root")
    assert "data.root" in [action.dest for action in fit._actions]
    parser.add_subcommands().add_subcommand("fit", fit)
    assert parser._subcommands_action is not None
    assert list(parser._subcommands_action.choices or ()) == ["fit"]
    assert all(hasattr(owner, name) for name, owner in READ.items() if name != "_actions")
