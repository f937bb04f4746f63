"""Any folder of class folders, with or without train, valid and test folders above them."""

import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from kth_lightning.data.catalogue import Subset
from kth_lightning.data.images import is_image_name
from kth_lightning.data.sources.source import Candidate, Listing, Source
from kth_lightning.errors import InputError

_SUBSETS: dict[str, Subset] = {"train": "train", "valid": "val", "val": "val", "validation": "val", "test": "test"}
_SUFFIXES = "JPEG, PNG, WebP, BMP or TIFF"


class FolderSource(Source):
    """List the images of a folder.

    The classes are the folders in `root`, or those in its train, valid and test folders where it has nothing else.
    Images may lie at any depth below their class folder. Names that start with a dot are passed over.

    Args:
        root: Folder of class folders.
        test_root: Another folder of class folders, for testing only; its classes must be among those of `root`.
    """

    def __init__(self, root: str | Path, test_root: str | Path | None = None) -> None:
        self.root = Path(root)
        self.test_root = None if test_root is None else Path(test_root)

    def list(self, cache_dir: Path) -> Listing:
        """List the images; nothing is written to `cache_dir`.

        Raises:
            InputError: A folder is missing or empty, has a class without images or a class that is not trained.
        """
        root = _existing(self.root, "--data.root")
        listing = Listing(root, candidates=[])
        folders = _visible_folders(root)
        if folders and all(folder.name.lower() in _SUBSETS for folder in folders):
            for folder in folders:
                _add_classes(listing, folder, "--data.root", _SUBSETS[folder.name.lower()])
            known = {candidate.label for candidate in listing.candidates if candidate.subset == "train"}
            if not known:
                raise InputError(f"--data.root: {root} has no train folder beside {folders[0].name}; add one")
        else:
            _add_classes(listing, root, "--data.root", "")
            known = {candidate.label for candidate in listing.candidates}
        if self.test_root is not None:
            test_root = _existing(self.test_root, "--data.test_root")
            if test_root.is_relative_to(root):
                raise InputError(f"--data.test_root: {test_root} lies in --data.root {root}; move it out of there")
            _add_classes(listing, test_root, "--data.test_root", "test")
        _check_classes(listing, known)
        listing.candidates.sort(key=lambda candidate: candidate.file.as_posix())
        return listing


def _existing(folder: Path, flag: str) -> Path:
    folder = folder.expanduser().resolve()
    if folder.is_file():
        raise InputError(f"{flag}: {folder} is a file; name a folder that holds one folder a class")
    if not folder.is_dir():
        raise InputError(f"{flag}: there is no folder {folder}; check the path")
    return folder


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _add_classes(listing: Listing, base: Path, flag: str, subset: Subset) -> None:
    loose = sorted(entry for entry in base.iterdir() if entry.is_file() and is_image_name(entry))
    classes = _visible_folders(base)
    if not classes:
        found = "has images but no class folders" if loose else "has no class folders"
        raise InputError(f"{flag}: {base} {found}; put the images into one folder a class")
    listing.problems.extend((file, "outside the class folders") for file in loose)
    for class_folder in classes:
        closed: list[OSError] = []
        files = sorted(_walk(class_folder, closed))
        listing.problems.extend((Path(error.filename), f"unreadable folder: {error.strerror}") for error in closed)
        images = [file for file in files if is_image_name(file)]
        if not images:
            raise InputError(
                f"{flag}: {class_folder} is an empty class, without any {_SUFFIXES} file; add images or remove it"
            )
        listing.candidates.extend(Candidate(file, class_folder.name, subset=subset) for file in images)
        others = sorted(set(files) - set(images))
        listing.problems.extend((file, f"no image: its name is not that of a {_SUFFIXES} file") for file in others)


def _walk(folder: Path, closed: list[OSError]) -> Iterator[Path]:
    """Yield the visible files at any depth, through linked folders too but through none twice.

    What keeps a folder from being listed is added to `closed`.
    """
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, onerror=closed.append, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".")]
        if real not in seen:
            yield from (Path(parent, name) for name in files if not name.startswith("."))
        seen.add(real)


def _check_classes(listing: Listing, known: set[str]) -> None:
    for candidate in listing.candidates:
        if candidate.label not in known:
            inside = candidate.file.is_relative_to(listing.root)
            near = get_close_matches(candidate.label, sorted(known), n=1)
            raise InputError(
                f"{'--data.root' if inside else '--data.test_root'}: the class {candidate.label!r} of {candidate.file} "
                f"has no training images{f', did you mean {near[0]!r}?' if near else ''}; "
                f"the classes are {', '.join(sorted(known)[:30])}"
            )
