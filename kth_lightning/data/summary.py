"""What people read of a prepared data set."""

from collections import Counter
from collections.abc import Iterator, Sequence

from kth_lightning.data.audit import Finding, count_left_out, ways_out
from kth_lightning.data.catalogue import Catalogue, ImageRecord
from kth_lightning.data.deep_values import WHOLE_16_BITS

_MAX_CLASSES_SHOWN = 40


def summarise_images(images: Sequence[ImageRecord], left_out: Sequence[Finding]) -> str:
    """Write lines on what is usable, what is not and why, duplicates and class counts.

    Args:
        images: The usable ones.
        left_out: All other files, those that are no images too.
    """
    counts = Counter(image.label for image in images)
    files = count_left_out(left_out, (image.label for image in images))["files"]
    lines = [f"{len(images)} of {files} files usable in {len(counts)} classes"]
    kinds: dict[str, list[str]] = {}
    for finding in left_out:
        kinds.setdefault(finding.kind, []).append(finding.path)
    ways = ways_out(left_out)
    for kind, paths in sorted(kinds.items()):
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        way = f"; {ways[kind]}" if kind in ways else ""
        lines.append(f"  {kind}: {len(paths)} ({', '.join(sorted(paths)[:3])}{more}){way}")
    members: dict[int, list[ImageRecord]] = {}
    for image in images:
        members.setdefault(image.duplicates, []).append(image)
    groups = [group for group in members.values() if len(group) > 1]
    across = sum(len({image.label for image in group}) > 1 for group in groups)
    lines.append(
        f"duplicates: {len(groups)} groups of {sum(map(len, groups))} images "
        f"({len(groups) - across} within a class, {across} across classes); a group stays in one part of the split"
        if groups
        else "duplicates: none"
    )
    if boxed := [image for image in images if image.box]:
        several = sum(count > 1 for count in Counter(image.path for image in boxed).values())
        lines.append(
            f"boxes: {len(boxed)} images are boxes of {len({image.path for image in boxed})} files, of which {several} "
            "have several; boxes of one file stay in one part of the split"
        )
    if sizes := Counter(image.group for image in images if image.group).values():
        low, high = min(sizes), max(sizes)
        images_each = f"{low} images" if low == high else f"{low} to {high} images"
        lines.append(f"groups of the source: {len(sizes)} of {images_each}, each in one part of the split")
    lines.append(f"images per class: {class_sizes(counts)}")
    if len(counts) <= _MAX_CLASSES_SHOWN:
        lines.append("  " + ", ".join(f"{label} {counts[label]}" for label in sorted(counts)))
    return "\n".join([*lines, ""])


def class_sizes(counts: Counter[str]) -> str:
    """Say how many images classes have, from the fewest to the most.

    Args:
        counts: The number of each class's images, of one class at least.
    """
    (largest, most), (smallest, fewest) = counts.most_common()[0], counts.most_common()[-1]
    return f"{most} in each" if most == fewest else f"{fewest} ({smallest}) to {most} ({largest})"


def values_sentence(catalogue: Catalogue) -> Iterator[str]:
    """Say which range of values images deeper than 8 bits have, where there are some."""
    deep = sum(image.low is not None for image in catalogue.images)
    if deep:
        low, high = catalogue.read_options.value_range or WHOLE_16_BITS
        yield (
            f"{deep} of {len(catalogue.images)} images are deeper than 8 bits: their values from {low:g} to {high:g} "
            "become black to white (--data.value_range sets others)"
        )
