"""Groups of images that belong together: as the source names them, by their folder or path, or taken in one burst."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from kth_lightning.data.catalogue import Catalogue, ImageRecord
from kth_lightning.data.class_names import check_names, composed
from kth_lightning.data.date_taken import seconds_between
from kth_lightning.errors import InputError

_WAYS = "give parent:N (the folder N levels up), regex:PATTERN (on the path) or burst:SECONDS (by EXIF date)"
_MAX_LEVELS = 50

GroupBy = Callable[[Sequence[ImageRecord]], list[str]]
"""From images to the name of each one's group; empty where it has none."""


def read_group_by(text: str) -> GroupBy:
    """Understand `--data.group_by`.

    Raises:
        InputError: It is no way to group images.
    """
    way, _, value = text.partition(":")
    flag = f"--data.group_by {text}"
    if way == "parent" and value.isdecimal() and 1 <= int(value) <= _MAX_LEVELS:
        return lambda images: _parents(images, int(value))
    if way == "regex" and value:
        try:
            pattern = re.compile(value)
        except re.error as error:
            raise InputError(f"{flag}: this is no regular expression ({error}); correct it") from None
        return lambda images: [_matched(pattern, image.path) for image in images]
    if way == "burst":
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if 0 <= seconds < float("inf"):
            return lambda images: _bursts(images, seconds)
    raise InputError(f"{flag}: {_WAYS}")


def group_images(catalogue: Catalogue, group_by: str | None, ignored: bool) -> tuple[Catalogue, list[str]]:
    """Put images into groups.

    Args:
        catalogue: The images, with the groups of their source.
        group_by: As `--data.group_by` has it; None for the source's own groups.
        ignored: Take all groups away.

    Returns:
        The images in their groups, and sentences about the groups and about images that have none.

    Raises:
        InputError: The images have groups already, none gets one, each class is a group of its own, or the names of two
            groups look alike.
    """
    if group_by is None:
        groups = [image.group for image in catalogue.images]
    else:
        group = read_group_by(group_by)
        if named := next((image for image in catalogue.images if image.group), None):
            raise InputError(
                f"--data.group_by {group_by}: the source has groups already ({named.path} is of {named.group!r}); "
                "leave the flag out, or the column"
            )
        groups = group(catalogue.images)
        if not any(groups):
            way = "has an EXIF date" if group_by.startswith("burst") else "gets a group"
            raise InputError(f"--data.group_by {group_by}: no image {way}, such as {catalogue.images[0].path}; {_WAYS}")
        _check_classes(catalogue, groups, group_by)
        check_names(groups, f"--data.group_by {group_by}", "groups")
    if ignored:
        return _with_groups(catalogue, [""] * len(groups)), []
    lacking = groups.count("")
    remarks = []
    if group_by is not None:
        sizes = Counter(filter(None, groups)).values()
        span = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else f"{max(sizes)}"
        made = f"{len(sizes)} group{'s' if len(sizes) > 1 else ''} of {span} image{'s' if max(sizes) > 1 else ''}"
        remarks.append(f"--data.group_by {group_by} makes {made}")
    boxes = Counter(image.path for image in catalogue.images if image.box)
    if lacking == len(groups) and (several := sum(number > 1 for number in boxes.values())):
        remarks.append(
            f"{several} files have several boxes, and no image has a group: intervals treat all boxes as independent; "
            "say which site or burst an image is of (the table's column group, or --data.group_by)"
        )
    if lacking and lacking < len(groups):
        example = catalogue.images[groups.index("")].path
        remarks.append(
            f"{lacking} of {len(groups)} images have no group, such as {example}; each is a group of its own"
        )
    return _with_groups(catalogue, groups), remarks


def _with_groups(catalogue: Catalogue, groups: Sequence[str]) -> Catalogue:
    images = zip(catalogue.images, groups, strict=True)
    return replace(
        catalogue,
        images=tuple(image if image.group == group else replace(image, group=group) for image, group in images),
    )


def _check_classes(catalogue: Catalogue, groups: Sequence[str], group_by: str) -> None:
    """Refuse groups that are the classes, as the folders of classes would be."""
    labels: dict[str, set[str]] = defaultdict(set)
    for image, group in zip(catalogue.images, groups, strict=True):
        labels[image.label].add(group)
    groups_of_classes = [next(iter(found)) for found in labels.values() if len(found) == 1]
    if len(labels) > 1 and len({*groups_of_classes}) == len(labels):
        label, found = next(iter(labels.items()))
        raise InputError(
            f"--data.group_by {group_by}: each class is a group of its own ({label!r} is {next(iter(found))!r}), so no "
            "class could be both trained and tested; name another level or pattern"
        )


def _parents(images: Sequence[ImageRecord], levels: int) -> list[str]:
    """Return the name of the folder so many levels above each file, which several classes may have in common.

    An image that lies directly in its class's folder has no group, unless all do.
    """
    folders, classes = [_folders(image) for image in images], _class_places(images)
    places = [len(above) - levels for above in folders]
    own = [place >= 0 and place != of_class for place, of_class in zip(places, classes, strict=True)]
    kept = own if any(own) else [place >= 0 for place in places]
    return [above[place] if keep else "" for above, place, keep in zip(folders, places, kept, strict=True)]


def _folders(image: ImageRecord) -> tuple[str, ...]:
    return PurePosixPath(image.path).parts[:-1]


def _class_places(images: Sequence[ImageRecord]) -> list[int | None]:
    """Return at which place of each path the folder of a class stands; None where none does."""
    labels = {image.label for image in images}
    named = [[place for place, name in enumerate(_folders(image)) if composed(name) == image.label] for image in images]
    counts = Counter(place for places in named for place in places)
    usual = min(counts, key=lambda place: (-counts[place], place), default=None)
    found: list[int | None] = []
    for image, places in zip(images, named, strict=True):
        other = usual is not None and {*map(composed, _folders(image)[usual : usual + 1])} & labels  # it was relabelled
        found.append(usual if usual in places or (not places and other) else next(iter(places), None))
    return found


def _matched(pattern: re.Pattern[str], path: str) -> str:
    """Return what a pattern's parentheses hold in a path, or all of it where it has none."""
    found = pattern.search(path)
    if found is None:
        return ""
    if pattern.groups:
        return "/".join(part or "" for part in found.groups()) if any(found.groups()) else ""
    return found[0]


def _bursts(images: Sequence[ImageRecord], seconds: float) -> list[str]:
    """Part each folder's images, in the order of their dates, wherever more than so many seconds lie between two.

    Folders that differ in the class alone are one: a burst may show two classes.
    """
    groups = [""] * len(images)
    folders: dict[str, list[int]] = defaultdict(list)
    for position, (image, of_class) in enumerate(zip(images, _class_places(images), strict=True)):
        if image.taken:
            folders["/".join(name for place, name in enumerate(_folders(image)) if place != of_class)].append(position)
    for folder, positions in folders.items():
        name = before = ""
        for position in sorted(positions, key=lambda item: (images[item].taken, images[item].path)):
            taken = images[position].taken
            if not before or seconds_between(before, taken) > seconds:
                name = f"{folder} {taken}".lstrip()
            groups[position], before = name, taken
    return groups
