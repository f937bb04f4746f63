"""Folders of the same names in several folders: classes at two levels, or what classes were sorted by."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kth_lightning.data.class_names import look
from kth_lightning.data.sources.folder_names import means_images, subset_of

_NAMED = 5


@dataclass(frozen=True)
class SameNames:
    """What several folders have in common.

    Attributes:
        shared: Names, as `look` returns them, of folders that lie in two or more of them; those that mean images are
            left out where they are alone.
        holders: Names of the folders that they lie in.
        ambiguous: Whether either level may be that of the classes, so that only people can tell.
    """

    shared: list[str]
    holders: list[str]
    ambiguous: bool

    def way_out(self) -> str:
        """Say why it cannot be told which folders are the classes, and how people say it."""
        return (
            f"{', '.join(self.holders[:_NAMED])} contain folders with the same names "
            f"({', '.join(self.shared[:_NAMED])}); give --data.class_level 1 if {self.holders[0]} is a class, 2 if "
            f"{self.shared[0]} is"
        )

    def remark(self) -> str:
        """Say which folders were taken for the classes."""
        more = f" and {len(self.holders) - _NAMED} more" if len(self.holders) > _NAMED else ""
        return (
            f"the classes are folders such as {', '.join(self.holders[:_NAMED])}{more}; the folders below them with "
            f"the same names ({', '.join(self.shared[:_NAMED])}) were not used as classes (--data.class_level 2 does)"
        )


def same_names(inner: Mapping[Path, Sequence[Path]], own_images: Collection[Path]) -> SameNames:
    """Find the folders of the same names in several folders.

    One name is enough, as two cameras may have one species in common, unless it is what classes are sorted by (a
    number, a date, a part of a split), or not every folder could be a camera: some have images of their own, or there
    would be a single class.

    Args:
        inner: The folders in each folder.
        own_images: Those with images of their own.
    """
    counts = Counter(name for folders in inner.values() for name in {look(folder.name) for folder in folders})
    shared = sorted(name for name, count in counts.items() if count > 1)
    if all(map(means_images, shared)):
        return SameNames([], [], ambiguous=False)
    holders = [top for top, folders in inner.items() if any(look(folder.name) in shared for folder in folders)]
    ambiguous = _several_are_shared(inner, own_images) or (
        not all(map(_sorts_images, shared)) and not own_images and len(counts) > 1
    )
    return SameNames(shared, sorted(top.name for top in holders), ambiguous)


def _several_are_shared(inner: Mapping[Path, Sequence[Path]], own_images: Collection[Path]) -> bool:
    sorted_into = [folders for top, folders in inner.items() if len(folders) > 1 and top not in own_images]
    counts = Counter(name for folders in sorted_into for name in {look(folder.name) for folder in folders})
    return sum(count > 1 for count in counts.values()) > 1


def _sorts_images(name: str) -> bool:
    """Tell whether a name is rather one that images of a class are sorted by: 2024-05, 100MEDIA, train, images."""
    return not name[:1].isalpha() or means_images(name) or bool(subset_of(name))
