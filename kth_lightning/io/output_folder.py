"""Folders that commands write into."""

from collections.abc import Iterable
from pathlib import Path

from kth_lightning.errors import InputError
from kth_lightning.io.image_kinds import is_image_name
from kth_lightning.io.walk import MARK, is_written, walk


def make_output_folder(folder: Path, flag: str) -> None:
    """Make a folder for results and mark it, so that nothing in it is ever taken for data.

    Args:
        folder: It may exist, and be an earlier command's.
        flag: What named it.

    Raises:
        InputError: There are images in it that this program did not write: marked, they would no longer be data.
        OSError: It cannot be made.
    """
    _make(folder, flag, walk(folder))


def make_cache_folder(folder: Path) -> None:
    """Make a folder for stores likewise; in the folders in it, sources may have written images before.

    Raises:
        InputError: There are images in it.
        OSError: It cannot be made.
    """
    _make(folder, "--data.cache_dir", folder.iterdir() if folder.is_dir() else ())


def _make(folder: Path, flag: str, files: Iterable[Path]) -> None:
    if folder.is_dir() and not is_written(folder):
        image = next(filter(is_image_name, files), None)
        if image is not None:
            raise InputError(f"{flag} {folder} is a folder with images, such as {image}; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / MARK
    if not mark.exists():
        mark.write_text("Written by kth_lightning; nothing in this folder is taken for data.\n", encoding="utf-8")
