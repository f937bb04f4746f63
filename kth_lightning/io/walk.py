"""The files below a folder that are people's own: not hidden, not a system's, not written by this program."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

MARK = ".kth_lightning"
"""Name of the file that says that a folder, with all below it, was written by this program."""

_RUN = {"config.yaml", "splits.csv"}

_OF_SYSTEMS = frozenset(
    {
        "@eadir", "#recycle", "@recycle", "@recently-snapshot", "__macosx", "lost+found", "$recycle.bin",
        "system volume information", "__pycache__", "thumbs.db", "desktop.ini",
    }
)  # fmt: skip


def is_own_name(name: str) -> bool:
    """Tell whether a file or folder is a person's own: neither hidden nor made by a system beside people's files."""
    return not name.startswith(".") and name.lower() not in _OF_SYSTEMS


def _was_written(names: Collection[str]) -> bool:
    return MARK in names or _RUN.issubset(names)


def is_written(folder: Path) -> bool:
    """Tell whether this program wrote a folder: it is marked, or a run's."""
    return (folder / MARK).exists() or all((folder / name).exists() for name in _RUN)


def walk(folder: Path, closed: list[OSError] | None = None, written: list[Path] | None = None) -> Iterator[Path]:
    """Yield a folder's own files, then those of each folder in it, all in the order of their names.

    Linked folders are followed, but none is entered twice.

    Args:
        folder: It is entered even where this program wrote it.
        closed: What keeps a folder from being listed is added to it.
        written: Folders that were passed over, since this program wrote them, are added to it.
    """
    seen: set[str] = set()
    failed = (lambda error: None) if closed is None else closed.append
    for parent, folders, files in os.walk(folder, onerror=failed, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        if len(seen) > 1 and _was_written(files):
            folders.clear()
            if written is not None:
                written.append(Path(parent))
            continue
        folders[:] = sorted(filter(is_own_name, folders))
        yield from (Path(parent, name) for name in sorted(filter(is_own_name, files)))


def own_folders(folder: Path) -> list[Path]:
    """List the folders in a folder that are people's own, sorted; those that this program wrote are among them."""
    with os.scandir(folder) as entries:  # which knows without a further look which are folders
        return sorted(Path(entry) for entry in entries if is_own_name(entry.name) and entry.is_dir())


def holds_output_only(folder: Path) -> bool:
    """Tell whether this program wrote a folder, or all that lies in it, as in runs/."""
    try:
        names = os.listdir(folder)  # noqa: PTH208  (a class may have a hundred thousand images)
    except OSError:
        return False
    if _was_written(names):
        return True
    own = [name for name in names if is_own_name(name)]
    return bool(own) and all((folder / name).is_dir() and holds_output_only(folder / name) for name in own)
