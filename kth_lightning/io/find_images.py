"""The images that a command line names: files, folders and globs."""

import glob
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from kth_lightning.data.images import is_image_name
from kth_lightning.errors import InputError


def find_images(paths: Sequence[str]) -> Iterator[Path]:
    """List images, folder by folder, so that hundreds of thousands need no memory.

    A path that cannot be used is an error before the first image is given out.

    Args:
        paths: A file is given out whatever its name. Of a folder, and of those below it, the visible files with a
            image's suffix are, sorted; a folder that cannot be listed is given out itself. A glob may have `**`; its
            matches are taken like paths, but behind `**` only the files.

    Raises:
        InputError: There is nothing at a path, or no image in it.
    """
    for path in paths:
        if next(_images(path), None) is None:
            raise InputError(_nothing(path))
    return chain.from_iterable(map(_images, paths))


def _images(path: str) -> Iterator[Path]:
    position = Path(path).expanduser()
    if not path:  # which a path takes for the folder one is in
        return
    if position.exists():
        yield from _walk(position) if position.is_dir() else [position]
        return
    for match in map(Path, sorted(glob.glob(str(position), recursive=True))):  # noqa: PTH207  (Path.glob shows hidden files)
        if not match.is_dir():
            yield match
        elif "**" not in path:
            yield from _walk(match)


def _walk(folder: Path) -> Iterator[Path]:
    """Yield a folder's own images, then those of each folder in it, through linked folders but through none twice."""
    seen: set[str] = set()
    closed: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=closed.append, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real not in seen:
            yield from (Path(parent, name) for name in sorted(names) if is_image_name(Path(name)))
        seen.add(real)
    yield from (Path(failure.filename) for failure in closed)


def _nothing(path: str) -> str:
    if path and Path(path).expanduser().is_dir():
        return f"{path} has no image in it (JPEG, PNG, WebP, BMP or TIFF); name another folder"
    if glob.has_magic(path):
        return f"no file matches {path}; check the pattern"
    return f"there is no file or folder {path!r}; check the path"
