"""The command `stores`: list what was computed once and kept, and delete it."""

import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import tabulate
from safetensors import SafetensorError, safe_open

from kth_lightning.cli.parser import Parser
from kth_lightning.io.cache_folder import cache_folder

Kind = Literal["images", "catalogues", "pixels", "features"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_PLACES: dict[Kind, tuple[str, ...]] = {
    "images": ("archives/*", "sample-*", "datasets/*"),
    "catalogues": ("catalogues/*",),
    "pixels": ("pixels/*",),
    "features": ("features/*",),
}


class _Store(NamedTuple):
    kind: Kind
    path: Path
    size: int
    written: float


def stores_command(argv: list[str]) -> None:
    """List what the cache folder holds, or delete some kinds of it, which the next run makes again.

    Args:
        argv: The command line behind `stores`.

    Raises:
        InputError: A setting cannot be used.
    """
    parser = Parser(
        prog="python -m kth_lightning stores",
        description="List what earlier commands computed once and kept on the disk, or delete some of it. Results and "
        "checkpoints are not part of it.",
    )
    parser.add_argument(
        "--clear",
        nargs="+",
        type=Kind,
        default=[],
        help="Kinds to delete; they are made again when a run needs them.",
    )
    parser.add_argument("--cache_dir", type=str | None, default=None, help="Cache folder to look at; yours by default.")
    options = parser.parse_args(argv)
    folder = cache_folder(options.cache_dir)
    listed = list(_stores(folder))
    if options.clear:
        cleared = [store for store in listed if store.kind in options.clear]
        for store in cleared:
            shutil.rmtree(store.path) if store.path.is_dir() else store.path.unlink(missing_ok=True)
        print(f"deleted {_count(cleared)} of {', '.join(options.clear)} in {folder}")
        return
    if listed:
        rows = [
            (
                store.kind,
                store.path.name,
                _holds(store),
                _bytes(store.size),
                f"{datetime.fromtimestamp(store.written):%F %R}",
            )
            for store in listed
        ]
        print(tabulate.tabulate(rows, ["kind", "name", "holds", "size", "written"], "github", disable_numparse=True))
        print()
    print(f"{_count(listed)} in {folder}; stores --clear {' '.join(KINDS)} deletes them, or some of them")


def _stores(folder: Path) -> Iterator[_Store]:
    for kind, patterns in _PLACES.items():
        for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
            if path.suffix == ".lock":  # another process may be waiting for it
                continue
            files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            states = [file.stat() for file in files]
            written = max((state.st_mtime for state in states), default=path.stat().st_mtime)
            yield _Store(kind, path, sum(state.st_size for state in states), written)


def _holds(store: _Store) -> str:
    if store.kind in ("pixels", "features") and store.path.is_dir():
        return _rows(store.path)
    return f"{sum(path.is_file() for path in store.path.rglob('*')):,} files" if store.path.is_dir() else "unfinished"


def _rows(folder: Path) -> str:
    number, shapes = 0, set()
    for file in folder.glob("*.safetensors"):
        try:
            with safe_open(file, "np") as opened:
                rows = opened.get_slice("rows")
        except SafetensorError:
            continue
        size, *shape = rows.get_shape()
        number += size
        shapes.add(f"{' x '.join(map(str, shape))} {rows.get_dtype()}")
    if number:
        return f"{number:,} rows of {' and '.join(sorted(shapes))}"
    return "damaged" if any(folder.iterdir()) else "nothing yet"


def _count(stores: list[_Store]) -> str:
    return f"{len(stores)} stores, {_bytes(sum(store.size for store in stores))},"


def _bytes(number: int) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"
