"""The folder that relative paths of a file start from, told by where they exist."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from kth_lightning.errors import InputError

_WAY_OUT = "move the file into the folder that its paths start from, and give that folder's images alone"


def base_folders(paths: Sequence[str], folders: Iterable[Path], name: str) -> list[Path]:
    """Choose one folder for all paths: that in which most of them exist, or the first where none does.

    Args:
        paths: Relative, normalised.
        folders: That they may start from.
        name: Of the file that has the paths, for sentences.

    Returns:
        The folder, and others that have the same files, such as links to it.

    Raises:
        InputError: A path exists in two folders, which have another file each, or two have as many of the paths.
    """
    there = {folder: _existing(paths, folder) for folder in dict.fromkeys(folders)}
    base = max(there, key=lambda folder: len(there[folder]))  # the first, of several
    chosen = [base]
    for folder, found in there.items():
        if folder == base or not found:
            continue
        shared = [path for path in found if path in there[base]]
        if other := next((path for path in shared if not (base / path).samefile(folder / path)), None):
            raise InputError(f"{name}: {other!r} is in {base} as well as in {folder}; {_WAY_OUT}")
        if shared:
            chosen.append(folder)
        elif len(found) == len(there[base]):
            raise InputError(
                f"{name}: {len(found)} of its paths are in {base} and as many others in {folder}; {_WAY_OUT}"
            )
    return chosen


def _existing(paths: Sequence[str], folder: Path) -> dict[str, None]:
    """Return which paths exist below a folder, in their order."""
    parents = {parent for parent in map(os.path.dirname, paths) if os.path.isdir(os.path.join(folder, parent))}  # noqa: PTH112, PTH118
    # os.path, since pathlib takes seconds to join a hundred thousand paths.
    return {
        path: None
        for path in paths
        if os.path.dirname(path) in parents and os.path.exists(os.path.join(folder, path))  # noqa: PTH110, PTH118, PTH120
    }
