"""The images that a command line names: files, folders and globs."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from kth_lightning.errors import InputError
from kth_lightning.io.image_kinds import is_image
from kth_lightning.io.walk import is_own_name, is_written, walk

_KINDS_NAMED = 8


class FoundImages:
    """Images, listed anew at every pass, folder by folder, so that hundreds of thousands need no memory.

    Args:
        paths: A file is given out whatever it is. Of a folder, and of those below it, the images are, told by their
            names or else their first bytes; what is hidden, a system's or written by this program is passed over, and a
            folder that cannot be listed is given out itself. A glob may have `**`; its matches are taken like paths,
            but behind `**` only the files.

    Attributes:
        passed_over: How many files of each suffix ("" for none) are no images; known after a whole pass.

    Raises:
        InputError: There is nothing at a path, no image in it, or it is part of another one.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        _refuse_parts(paths)
        self.paths = paths
        self.passed_over: Counter[str] = Counter()
        for path in paths:
            others: Counter[str] = Counter()
            if next(_images(path, others), None) is None:
                raise InputError(_nothing(path, others))

    def __iter__(self) -> Iterator[Path]:
        others: Counter[str] = Counter()
        for path in self.paths:
            yield from _images(path, others)
        self.passed_over = others

    def passed_over_note(self) -> str:
        """Say how many files of which suffixes are no images; empty where there are none."""
        return f"; {described(self.passed_over)} passed over" if self.passed_over else ""


def described(others: Counter[str]) -> str:
    """Write out a count of files by suffix, such as "11 other files (8 .txt, 2 .cr2, 1 without a suffix)"."""
    kinds = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{count:,} {suffix or 'without a suffix'}" for suffix, count in kinds[:_KINDS_NAMED]]
    if len(kinds) > _KINDS_NAMED:
        named.append(f"{sum(count for _, count in kinds[_KINDS_NAMED:]):,} of {len(kinds) - _KINDS_NAMED} other kinds")
    total = others.total()
    return f"{total:,} other file{'s' if total > 1 else ''} ({', '.join(named)})"


def _refuse_parts(paths: Sequence[str]) -> None:
    """Refuse paths whose images others have too; of globs, those within a folder that is named."""
    named: dict[str, str] = {}
    for path in paths:
        place = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111  (a shell may name many)
        if place in named:
            raise InputError(f"{path} and {named[place]} are the same place; name it once")
        named[place] = path
    for place, path in named.items() if len(named) > 1 else ():
        while place != (place := os.path.dirname(place)):  # noqa: PTH120
            if place in named:
                raise InputError(f"{path} lies in {named[place]}, which is named too; name one of them")


def _images(path: str, others: Counter[str]) -> Iterator[Path]:
    position = Path(path).expanduser()
    if not path:  # which a path takes for the folder one is in
        return
    if position.exists():
        yield from _in_folder(position, others) if position.is_dir() else [position]
        return
    for match in _matches(position):
        if not match.is_dir():
            yield match
        elif "**" not in path:
            yield from _in_folder(match, others)


def _in_folder(folder: Path, others: Counter[str]) -> Iterator[Path]:
    closed: list[OSError] = []
    for file in walk(folder, closed):
        if is_image(file):
            yield file
        else:
            others[file.suffix.lower()] += 1
    yield from (Path(failure.filename) for failure in closed)


def _matches(pattern: Path) -> Iterator[Path]:
    """Yield what a glob matches, below the folders in it that are there as they are written: "June [2024]/*.jpg"."""
    base, *parts = [Path(pattern.anchor), *pattern.relative_to(pattern.anchor).parts]
    while parts and (base / parts[0]).exists():
        base /= parts.pop(0)
    whole = str(Path(glob.escape(str(base)), *parts))

    @lru_cache
    def is_own(folder: Path) -> bool:
        if folder == base:
            return True
        return is_own_name(folder.name) and not is_written(folder) and is_own(folder.parent)

    for match in map(Path, sorted(glob.glob(whole, recursive=True))):  # noqa: PTH207  (Path.glob shows hidden files)
        if match == base or (is_own_name(match.name) and is_own(match.parent)):
            yield match


def _nothing(path: str, others: Counter[str]) -> str:
    if path and Path(path).expanduser().is_dir():
        remark = f", but {described(others)}" if others else ""
        return f"{path} has no image in it{remark}; name another folder"
    if glob.has_magic(path):
        return f"no file matches {path}; check the pattern"
    return f"there is no file or folder {path!r}; check the path"
