"""What a split came to, in words: its sizes, what it lacks, and what groups kept from being even."""

from collections import Counter, defaultdict

from kth_lightning.data.catalogue import Catalogue
from kth_lightning.data.split import Part, Split
from kth_lightning.data.summary import class_sizes

_PURPOSES: dict[Part, str] = {"train": "training", "val": "validation", "test": "test"}
_UNEVEN = 0.1  # of a class's images


def describe_split(catalogue: Catalogue, split: Split) -> str:
    """Say in one line how the images are split and how uneven the classes are."""
    counts, classes = split.counts(catalogue), catalogue.class_names
    unused = f", {counts['unused'].total()} left out (they duplicate others)" if counts["unused"] else ""
    lack = ""
    for part in ("val", "test"):
        names = [name for name in classes if not counts[part][name]]
        lack += f"; no {_PURPOSES[part]} image shows {', '.join(names)}" if names else ""
    prescribed = Counter(
        part for part, image in zip(split.parts, catalogue.images, strict=True) if image.subset == "val"
    )
    if prescribed["train"]:
        lack += (
            f"; {prescribed['train'] + prescribed['test']} of {prescribed.total()} images that are prescribed for "
            "validation are trained or tested on, as folds and --data.splits share all images out alike"
        )
    if _is_one_group(catalogue.groups(split.indices("test"))):
        lack += (
            "; 1 test group: its accuracy has no interval for further groups; give more groups, or test all of them "
            "with compare --folds"
        )
    if parted := parted_groups(catalogue, split):
        number = "1 group" if len(parted) == 1 else f"{len(parted)} groups"
        lack += f"; --data.splits divides {number} of the source, such as {parted[0]!r}"
    if uneven := uneven_classes(catalogue, split):
        label, part, count, even = uneven[0]
        lack += (
            f"; as groups stay whole, {len({item[0] for item in uneven})} of {len(classes)} classes are uneven, "
            f"{label} the most: {count} {_PURPOSES[part]} images, where {even:.1f} would be even"
        )
    return (
        f"{counts['train'].total()} training, {counts['val'].total()} validation and {counts['test'].total()} test "
        f"images in {len(classes)} classes{unused}; training images per class: {class_sizes(counts['train'])}{lack}"
    )


def _is_one_group(groups: list[str]) -> bool:
    return len({*groups}) == 1 and bool(groups[0])


def parted_groups(catalogue: Catalogue, split: Split) -> list[str]:
    """List the source's groups whose images a split uses for several parts, as one that was given may."""
    parts: dict[str, set[Part]] = defaultdict(set)
    for image, part in zip(catalogue.images, split.parts, strict=True):
        if image.group and part != "unused":
            parts[image.group].add(part)
    return sorted(group for group, own in parts.items() if len(own) > 1)


def uneven_classes(catalogue: Catalogue, split: Split) -> list[tuple[str, Part, int, float]]:
    """List what whole groups did not let a split share out evenly, the furthest first.

    Returns:
        Class, part, the number of its images there, and the number that would be even, where the two are more than one
        image and a tenth of the class apart; nothing where no image has a group.
    """
    if not any(image.group for image in catalogue.images):
        return []
    counts = split.counts(catalogue)
    used = sum((counts[part] for part in _PURPOSES), Counter[str]())
    found: list[tuple[str, Part, int, float]] = []
    for label, count in used.items():
        for part in _PURPOSES:
            even = count * counts[part].total() / used.total()
            if abs(counts[part][label] - even) > max(1, _UNEVEN * count):
                found.append((label, part, counts[part][label], even))
    return sorted(found, key=lambda item: -abs(item[2] - item[3]) / used[item[0]])
