"""The rooms of the package import each other one way, and only public names of Lightning."""

import ast
from collections.abc import Iterator
from pathlib import Path

import kth_lightning

PACKAGE = Path(kth_lightning.__file__).parent
FLOORS = (
    ("io", "errors"),
    ("stores", "drawing"),
    ("data",),
    ("models",),
    ("evaluation", "explain"),
    ("report", "predict"),
    ("callbacks",),
    ("run",),
    ("cli", "testing"),
)


def _floor(module: str) -> int:
    room = module.split(".")[1]
    return next(floor for floor, rooms in enumerate(FLOORS) if room in rooms)


def _imports(file: Path) -> Iterator[tuple[str, list[str]]]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, [name.name for name in node.names]
        elif isinstance(node, ast.Import):
            yield from ((name.name, []) for name in node.names)


def _files() -> Iterator[tuple[str, Path]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(parts), file


def test_imports_run_one_way() -> None:
    upward = [
        f"{module} imports {imported}"
        for module, file in _files()
        if module.count(".") > 1 or module.split(".")[-1] == "errors"
        for imported, _ in _imports(file)
        if imported.startswith("kth_lightning.") and _floor(imported) > _floor(module)
    ]
    assert upward == []


def test_only_public_names_of_lightning_are_used() -> None:
    private = [
        f"{module}: {imported} {name}"
        for module, file in _files()
        for imported, names in _imports(file)
        if imported.partition(".")[0] in ("lightning", "torch", "torchmetrics", "tensorboard", "captum", "timm")
        for name in (*imported.split("."), *names)
        if name.startswith("_")
    ]
    assert private == []
