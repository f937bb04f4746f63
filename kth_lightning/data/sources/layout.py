"""How people's folders of images are laid out: which folders are classes, and which are parts of a split."""

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from kth_lightning.data.catalogue import Subset
from kth_lightning.data.class_names import look
from kth_lightning.data.sources.folder_names import means_images, means_masks, subset_of
from kth_lightning.data.sources.same_names import same_names
from kth_lightning.errors import InputError
from kth_lightning.io.image_kinds import is_image
from kth_lightning.io.walk import holds_output_only, is_own_name, own_folders, walk

_PLAIN = {"train", "val", "valid", "validation", "test"}
_PURPOSE = {"train": "training", "val": "validation", "test": "testing"}


class ClassFolder(NamedTuple):
    """A folder of images of one class."""

    path: Path
    name: str
    subset: Subset


@dataclass
class Layout:
    """What the folders below a root are.

    Attributes:
        root: The folder that they lie below.
        classes: The class folders; a class may have several.
        loose: Folders whose own files belong to no class.
        masks: Folders beside the classes that hold masks, by their names, and are passed over.
        remarks: Sentences on what was passed over, and how the folders were understood.
    """

    root: Path
    classes: list[ClassFolder] = field(default_factory=list)
    loose: list[Path] = field(default_factory=list)
    masks: set[Path] = field(default_factory=set)
    remarks: list[str] = field(default_factory=list)


def find_layout(root: Path, flag: str, class_level: int | None = None, skip: Path | None = None) -> Layout:
    """Find the class folders below a root.

    These are its folders, or those in its folders where these are parts of a split: by their names, or since they hold
    folders of the same names.

    Args:
        root: An existing folder.
        flag: What named it.
        class_level: 1 where the folders in the root are the classes, 2 where those in these are; None to find out.
        skip: A folder that is passed over, such as the cache.

    Raises:
        InputError: There are no class folders, or what they are cannot be told.
    """
    return _Finder(root, flag, skip).find(class_level)


def find_test_layout(root: Path, flag: str, known: Collection[str], skip: Path | None = None) -> Layout:
    """Find the class folders below a root whose images are all for testing.

    Args:
        root: An existing folder.
        flag: What named it.
        known: The classes that are trained, which are no masks whatever their names.
        skip: A folder that is passed over.

    Raises:
        InputError: There are no class folders.
    """
    return _Finder(root, flag, skip).find_test(known)


class _Finder:
    def __init__(self, root: Path, flag: str, skip: Path | None) -> None:
        self.root = root
        self.flag = flag
        self.skip = skip
        self.layout = Layout(root)
        self._listed: dict[Path, list[Path]] = {}

    def find(self, class_level: int | None) -> Layout:
        if class_level is not None:
            return self._at_level(class_level)
        base, tops = self._base()
        if tops and all(subset_of(top.name) for top in tops):
            return self._split(tops, base)
        named = [
            top
            for top in tops
            if subset_of(top.name) and len(self._folders(self._unwrapped(top))) > 1 and not _has_images(top)
        ]
        if named:
            return self._split_among_others(tops, named, base)
        return self._by_structure(base, tops)

    def find_test(self, known: Collection[str]) -> Layout:
        base = self.root
        while self._is_wrapper(base):
            (base,) = self._folders(base)
        looks = {*map(look, known)}
        trained = [
            folder for folder in self._all_folders(base) if means_masks(folder.name) and look(folder.name) in looks
        ]
        self._add_all(base, "test", sorted([*self._folders(base), *trained]))
        self.layout.masks -= {*trained}
        return self.layout

    def _by_structure(self, base: Path, tops: list[Path]) -> Layout:
        """Tell parts of a split whose names say nothing from classes whose images are sorted into folders."""
        inner = {top: self._folders(top) for top in tops}
        own_images = {top for top in tops if _has_images(top)}
        holders = [top for top in tops if inner[top] and top not in own_images]
        below = [folder for top in holders for folder in inner[top]]
        names = {look(folder.name) for folder in below}
        found = same_names(inner, own_images)
        if len(names) > 1 and found.shared and all(subset_of(item.name) and _has_images(item) for item in below):
            self.layout.remarks.append(
                f"every class has its own folders {' and '.join(sorted(names))}, which were taken for parts of a split"
            )
            for top in holders:
                for folder in inner[top]:
                    self._add(folder, top.name, subset_of(folder.name, [item.name for item in inner[top]]))
            for top in set(tops) - set(holders):
                self._add(top, top.name, "train")
            return self.layout
        if found.ambiguous:
            raise InputError(f"{self.flag}: {base} can be read in two ways, since {found.way_out()}")
        if found.shared:
            self.layout.remarks.append(found.remark())
        return self._plain(base, tops)

    def _split_among_others(self, tops: list[Path], named: list[Path], base: Path) -> Layout:
        """Read parts of a split that stand beside other folders."""
        classes = {look(folder.name) for top in named for folder in self._folders(self._unwrapped(top))}
        parts, strangers = [], []
        for top in tops:
            if subset_of(top.name):
                parts.append(top)
            elif not _any_image(top):
                self.layout.remarks.append(f"{self._name(top)} has no images and was passed over")
            elif self._is_unlabelled(top, classes):
                self._leave_unlabelled(top)
            else:
                strangers.append(top)
        if strangers:
            part, stranger = named[0].name, strangers[0]
            raise InputError(
                f"{self.flag}: {stranger} lies beside {part}, which looks like a part of a split, and does not "
                f"look like one; move it out of {base}, name it train, val or test, or give --data.class_level 1 if "
                f"{part} and {stranger.name} are classes"
            )
        return self._split(parts, base)

    def _split(self, parts: list[Path], base: Path) -> Layout:
        names = [part.name for part in parts]
        places = [(self._unwrapped(part), subset_of(part.name, names)) for part in parts]
        trained = [self._folders(folder) for folder, subset in places if subset == "train"]
        classes = {look(folder.name) for folders in trained for folder in folders}
        if not trained:
            raise InputError(f"{self.flag}: {base} has no train folder beside {places[0][0].name}; add one")
        for folder, subset in places:
            if subset != "train" and self._is_unlabelled(folder, classes):
                self._leave_unlabelled(folder)
            else:
                self._add_all(folder, subset)
        if base != self.root or not {name.lower() for name in names} <= _PLAIN:
            read = [
                f"{self._name(part)} for {_PURPOSE[subset]}" for part, (_, subset) in zip(parts, places, strict=True)
            ]
            self.layout.remarks.append(f"folders that were taken for parts of a split: {', '.join(read)}")
        return self.layout

    def _at_level(self, class_level: int) -> Layout:
        """Take all folders at a level for classes, whatever their names."""
        tops = [self.root] if class_level == 1 else self._folders(self.root)
        names = [top.name for top in tops] if class_level == 2 else []
        named = any(map(subset_of, names))
        for top in tops:
            subset = subset_of(top.name, names) if named else ""
            self._add_all(top, subset or ("train" if named else ""), self._all_folders(top))
        meant = {item.path for item in self.layout.classes if means_masks(item.name)}
        self.layout.masks -= meant
        if meant:
            self.layout.remarks.append(
                f"{', '.join(sorted({path.name for path in meant}))} was taken for a class, as --data.class_level "
                f"{class_level} says; move it elsewhere if it holds masks"
            )
        return self.layout

    def _plain(self, base: Path, tops: list[Path]) -> Layout:
        self._add_all(base, "", tops)
        if base != self.root:
            self.layout.remarks.append(f"the classes are the folders in {self._name(base)}")
        return self.layout

    def _add_all(self, folder: Path, subset: Subset, classes: list[Path] | None = None) -> None:
        classes = self._folders(folder) if classes is None else classes
        if not classes:
            fault = "has images but no class folders" if _has_images(folder) else "has no class folders"
            fault += "".join(f" beside {item.name}, which is taken for masks" for item in self._all_folders(folder)[:1])
            raise InputError(f"{self.flag}: {folder} {fault}; put the images into one folder per class")
        self.layout.loose.append(folder)
        for path in classes:
            self._add(path, path.name, subset)

    def _add(self, path: Path, name: str, subset: Subset) -> None:
        self.layout.classes.append(ClassFolder(path, name, subset))

    def _base(self) -> tuple[Path, list[Path]]:
        """Step into a root's only folder, as far as that holds folders."""
        base, tops = self.root, self._folders(self.root)
        while True:
            pictures = [top for top in tops if means_images(top.name) and self._folders(top) and not _has_images(top)]
            others = [top for top in tops if top not in pictures]
            if len(pictures) == 1 and not any(map(_any_image, others)):
                self.layout.remarks += [
                    f"{self._name(top)} stands beside {pictures[0].name} and was passed over" for top in others
                ]
                base, tops = pictures[0], self._folders(pictures[0])
            elif self._is_wrapper(base) and not subset_of(tops[0].name):
                base, tops = tops[0], self._folders(tops[0])
            else:
                return base, tops

    def _unwrapped(self, folder: Path) -> Path:
        return self._folders(folder)[0] if self._is_wrapper(folder) else folder

    def _is_wrapper(self, folder: Path) -> bool:
        """Tell whether a folder holds nothing but one folder, which holds folders and no images."""
        inner = self._folders(folder)
        if len(inner) != 1 or not self._folders(inner[0]):
            return False
        return not _has_images(folder) and not _has_images(inner[0])

    def _is_unlabelled(self, folder: Path, classes: set[str]) -> bool:
        """Tell whether a folder has images and no class folders."""
        inner = self._folders(folder)
        if not inner:
            return _has_images(folder)
        alone = len(inner) == 1 and look(inner[0].name) not in classes and not self._folders(inner[0])
        return alone and (means_images(inner[0].name) or look(inner[0].name) == look(folder.name))

    def _leave_unlabelled(self, folder: Path) -> None:
        self.layout.remarks.append(
            f"{self._name(folder)} has images but no class folders, so it is not used; predict can classify it later"
        )

    def _name(self, folder: Path) -> str:
        return str(folder.relative_to(self.root))

    def _folders(self, folder: Path) -> list[Path]:
        """List the folders in a folder that may hold images, and are no masks."""
        folders = self._all_folders(folder)
        self.layout.masks |= {entry for entry in folders if means_masks(entry.name)}
        return [entry for entry in folders if not means_masks(entry.name)]

    def _all_folders(self, folder: Path) -> list[Path]:
        if folder not in self._listed:
            try:
                entries = own_folders(folder)
            except OSError:
                if folder == self.root:
                    raise
                entries = []  # said when its files are listed
            written = [entry for entry in entries if entry == self.skip or holds_output_only(entry)]
            self.layout.remarks += [
                f"{self._name(entry)} was written by kth_lightning and passed over" for entry in written
            ]
            self._listed[folder] = [entry for entry in entries if entry not in written]
        return self._listed[folder]


def _has_images(folder: Path) -> bool:
    """Tell whether a folder itself, not one in it, has images."""
    try:
        with os.scandir(folder) as entries:
            return any(is_own_name(entry.name) and entry.is_file() and is_image(Path(entry)) for entry in entries)
    except OSError:
        return False


def _any_image(folder: Path) -> bool:
    """Tell whether there is an image at any depth."""
    return any(map(is_image, walk(folder)))
