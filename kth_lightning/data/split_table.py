"""Images matched to the table of a split by their content, wherever they lie now."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast, get_args

from kth_lightning.data.catalogue import Catalogue
from kth_lightning.data.split import Part, Split, check_parts
from kth_lightning.errors import InputError
from kth_lightning.io.split_file import SplitRow

_NAMED = 3  # examples in a sentence


@dataclass
class Difference:
    """What has become of a table's images.

    Attributes:
        new: Names (a path, and a box where there is one) of images that the table does not have.
        gone: Those of images of the table that are not there any more.
        changed: Those of images whose file has another content.
        relabelled: Those of images that show another class than they did.
        moved: Those of images whose folder or table names another part of the split than they are used for.
        regrouped: How the groups of images differ, as `other_groups` says it.
        renamed: New name of each class whose images all have the same new class.
    """

    new: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    relabelled: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    regrouped: str = ""
    renamed: dict[str, str] = field(default_factory=dict)

    @property
    def only_new(self) -> bool:
        """Tell whether every image of the table is there as it was."""
        return not (self.gone or self.changed or self.relabelled or self.moved or self.regrouped)

    def __bool__(self) -> bool:
        return bool(self.new) or not self.only_new

    def __str__(self) -> str:
        kinds = {
            "new": self.new,
            "gone": self.gone,
            "changed": self.changed,
            "relabelled": self.relabelled,
            "put into another part of the split": self.moved,
        }
        names = ", ".join(f"class {old!r} is called {new!r} now" for old, new in self.renamed.items())
        parts = []
        for kind, paths in kinds.items():
            if paths:
                examples = names if kind == "relabelled" and names else ", ".join(map(repr, sorted(paths)[:_NAMED]))
                more = ", …" if len(paths) > _NAMED and examples is not names else ""
                verb = "is" if len(paths) == 1 else "are"
                parts.append(f"{len(paths)} {verb} {kind} ({examples[:200]}{more})")
        if self.regrouped:
            parts.append(f"the groups of its images are others ({self.regrouped})")
        return ", ".join(parts)


class ChangedImagesError(InputError):
    """Refuse images that are not those of a table.

    Attributes:
        difference: What has become of them.
    """

    def __init__(self, sentence: str, difference: Difference) -> None:
        super().__init__(sentence)
        self.difference = difference


def split_rows(catalogue: Catalogue, split: Split) -> list[SplitRow]:
    """Return the table of a catalogue's split."""
    return [
        SplitRow(image.path, image.label, image.sha256, part, image.box_text)
        for image, part in zip(catalogue.images, split.parts, strict=True)
    ]


def match_split(
    catalogue: Catalogue, rows: Sequence[SplitRow], name: str, ignore_new: bool = False
) -> tuple[Catalogue, Split]:
    """Find a table's images among those of a catalogue by content and class, wherever they lie.

    Args:
        catalogue: The images that there are.
        rows: Of the table.
        name: What to call the table in a sentence.
        ignore_new: Leave out images that the table does not have.

    Returns:
        The table's images in its order and under its names, and what each is for.

    Raises:
        ChangedImagesError: Images are new, gone, changed or relabelled.
        InputError: A class has no image for training or validation.
    """
    positions, difference = compare_images(catalogue, rows)
    if ignore_new:
        difference.new = []
    if difference:
        raise ChangedImagesError(f"{name}: made for other images: {difference}", difference)
    images = [catalogue.images[position] for position in positions]
    named = tuple(
        image if image.path == row.path else replace(image, path=row.path)
        for image, row in zip(images, rows, strict=True)
    )
    located = {row.path: image.path for image, row in zip(images, rows, strict=True) if image.path != row.path}
    matched = replace(catalogue, images=named, located=located)
    split = Split(tuple(cast(Part, row.part) for row in rows))
    check_parts(matched, split, {"val"}, name)
    return matched, split


def compare_images(catalogue: Catalogue, rows: Sequence[SplitRow]) -> tuple[list[int], Difference]:
    """Find a table's images in a catalogue, and say what is not the same.

    Images of equal content and class stand for each other; those that kept their path stay what they were.

    Returns:
        The index in the catalogue of every row's image, shorter than the rows where some are missing.
    """
    positions: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for position, image in enumerate(catalogue.images):
        positions[image.content, image.label][image.path] = position
    chosen: dict[int, int] = {}
    waiting: list[int] = []
    for number, row in enumerate(rows):
        same = positions[row.content, row.label]
        if row.path in same:
            chosen[number] = same.pop(row.path)
        else:
            waiting.append(number)
    missing = []
    for number in waiting:
        rest = positions[rows[number].content, rows[number].label]
        if rest:
            chosen[number] = rest.pop(next(iter(rest)))
        else:
            missing.append(rows[number])
    left = sorted(position for rest in positions.values() for position in rest.values())
    return [chosen[number] for number in sorted(chosen)], _difference(catalogue, rows, missing, left)


def _difference(
    catalogue: Catalogue, rows: Sequence[SplitRow], missing: Sequence[SplitRow], left: Sequence[int]
) -> Difference:
    """Part what does not match into relabelled, changed, gone and new."""
    by_content: dict[str, list[int]] = defaultdict(list)
    for position in left:
        by_content[catalogue.images[position].content].append(position)
    by_name = {catalogue.images[position].name: position for position in left}
    new, relabelled = set(left), []
    targets: dict[str, set[str]] = defaultdict(set)
    for row in missing:
        if by_content[row.content]:
            position = by_content[row.content].pop()
            new.discard(position)
            relabelled.append(row.name)
            targets[row.label].add(catalogue.images[position].label)
    known = set(relabelled)
    changed = [row.name for row in missing if row.name not in known and by_name.get(row.name) in new]
    new -= {by_name[name] for name in changed}
    known.update(changed)
    before, now = {row.label for row in rows}, {image.label for image in catalogue.images}
    renamed = {
        old: next(iter(names))
        for old, names in targets.items()
        if len(names) == 1 and old not in now and not names & before
    }
    gone = [row.name for row in missing if row.name not in known]
    added = [catalogue.images[position].name for position in sorted(new)]
    return Difference(added, gone, changed, relabelled, renamed=renamed)


def misplaced(catalogue: Catalogue, split: Split) -> list[str]:
    """List the images that are used for another part of the split than their folder or table prescribes."""
    prescribed = {image.subset for image in catalogue.images}
    allowed: dict[str, set[Part]] = {
        "": set(get_args(Part)),
        "train": set(get_args(Part)) - (prescribed & {"val", "test"}),
        "val": {"val", "unused"},
        "test": {"test"},
    }
    return [
        image.name
        for image, part in zip(catalogue.images, split.parts, strict=True)
        if part not in allowed[image.subset]
    ]
