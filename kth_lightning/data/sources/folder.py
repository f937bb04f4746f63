"""Any folder of class folders, with or without train, valid and test folders above them."""

from collections import Counter
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path

from kth_lightning.data.class_names import check_names, composed
from kth_lightning.data.sources.layout import Layout, find_layout, find_test_layout
from kth_lightning.data.sources.mask_folders import masks_remarks, with_masks, without_masks
from kth_lightning.data.sources.source import Candidate, Listing, Source
from kth_lightning.errors import InputError
from kth_lightning.io.find_images import described
from kth_lightning.io.image_kinds import is_image, is_image_name
from kth_lightning.io.walk import is_own_name, walk


class FolderSource(Source):
    """The images of a folder.

    The classes are the folders in `root`, or those in its training, validation and test folders. Images may lie at any
    depth below their class folder. What is hidden, a system's or written by this program is passed over.

    Args:
        root: Folder of class folders.
        test_root: Another folder of class folders, for testing only; its classes must be among those of `root`.
        class_level: 1 where the folders in `root` are the classes, 2 where those in these are; found out where it is
            left out.
    """

    def __init__(self, root: str | Path, test_root: str | Path | None = None, class_level: int | None = None) -> None:
        self.root = Path(root)
        self.test_root = None if test_root is None else Path(test_root)
        self.class_level = class_level

    def list(self, cache_dir: Path) -> Listing:
        """List the files; nothing is written to `cache_dir`.

        Raises:
            InputError: A folder is missing or empty, has a class without images or a class that is not trained, or it
                cannot be told which folders are the classes.
        """
        root = _existing(self.root, "--data.root")
        if self.class_level not in (None, 1, 2):
            raise InputError(f"--data.class_level {self.class_level}: give 1 or 2, or leave it out")
        if root == cache_dir.resolve():
            raise InputError(f"--data.cache_dir: {root} is the folder of the images; name another")
        listing = Listing(root, candidates=[])
        cache = cache_dir.resolve()
        _add_classes(listing, find_layout(root, "--data.root", self.class_level, cache), "--data.root")
        subsets = {candidate.subset for candidate in listing.candidates}
        prescribed = "train" in subsets
        known = {item.label for item in listing.candidates if item.subset == "train" or not prescribed}
        if self.test_root is not None:
            test_root = _existing(self.test_root, "--data.test_root")
            if test_root.is_relative_to(root):
                raise InputError(f"--data.test_root: {test_root} lies in --data.root {root}; move it out of there")
            _add_classes(listing, find_test_layout(test_root, "--data.test_root", known, cache), "--data.test_root")
        check_names((candidate.label for candidate in listing.candidates), "--data.root")
        _check_classes(listing, known)
        listing.candidates.sort(key=lambda candidate: candidate.file.as_posix())
        return listing


def _existing(folder: Path, flag: str) -> Path:
    folder = folder.expanduser().resolve()
    if folder.is_file():
        raise InputError(f"{flag}: {folder} is a file; name a folder that holds one folder per class")
    if not folder.is_dir():
        raise InputError(f"{flag}: there is no folder {folder}; check the path")
    return folder


def _add_classes(listing: Listing, layout: Layout, flag: str) -> None:
    closed: list[OSError] = []
    written: list[Path] = []
    parents: dict[Path, set[str]] = {}
    for class_folder in layout.classes:
        parents.setdefault(class_folder.path.parent, set()).add(class_folder.name)
    for names in parents.values():
        check_names(names, flag)
    before = len(listing.candidates)
    own = {class_folder.path for class_folder in layout.classes}
    masks = {folder for folder in layout.masks if not own.intersection(folder.parents)}
    for path, name, subset in layout.classes:
        files, inside = without_masks(path, list(walk(path, closed, written)))
        if not any(map(is_image_name, files)) and not any(map(is_image, files)):
            instead = _instead(files, inside)
            raise InputError(f"{flag}: {path} is an empty class, without any image{instead}; add images or remove it")
        masks |= inside
        listing.candidates.extend(Candidate(file, composed(name), subset=subset) for file in files)
    for folder in layout.loose:
        files_here = (entry for entry in folder.iterdir() if is_own_name(entry.name) and not entry.is_dir())
        listing.problems.extend((file, "outside the class folders") for file in sorted(filter(is_image, files_here)))
    listing.problems.extend((Path(error.filename), f"unreadable folder: {error.strerror}") for error in closed)
    listing.candidates[before:], masked = with_masks(listing.candidates[before:], masks)
    listing.remarks.extend([*layout.remarks, *masks_remarks(masks, layout, masked)])
    listing.remarks.extend(f"{folder} was written by kth_lightning and passed over" for folder in written)


def _instead(files: Sequence[Path], masks: Collection[Path]) -> str:
    """Say what a class without an image has; empty where it has nothing."""
    others = Counter(file.suffix.lower() for file in files)
    has = [f"images in {min(masks).name}, which is taken for masks"] if masks else []
    has += [described(others)] if others else []
    return f"{', but ' if has else ''}{' and '.join(has)}"


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
