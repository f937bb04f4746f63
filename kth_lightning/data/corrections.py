"""What people decided about suspect labels, applied to the images of a source."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kth_lightning.data.audit import DROPPED, RELABELLED, Finding
from kth_lightning.data.catalogue import Catalogue, ImageRecord
from kth_lightning.data.class_names import composed
from kth_lightning.data.split_table import compare_images
from kth_lightning.errors import InputError
from kth_lightning.io.split_file import SplitRow
from kth_lightning.io.suspects_file import SuspectRow, read_decisions

_DONE = {"relabelled": "relabel", "dropped": "drop", "kept": "keep"}


@dataclass(frozen=True)
class Corrections:
    """Hold what a table of corrections makes of a data set.

    Attributes:
        images: Those that are left, with their corrected labels.
        findings: What was changed, for the audit.
        decided: Row of the table of each image that is left and was decided on, by the image's name.
        dropped: Rows of the images that are not left.
        counts: How many were "relabelled", "dropped" and "kept", and how many rows are "without_effect" since their
            images are not what they were.
        sentence: The same for people.
    """

    images: tuple[ImageRecord, ...]
    findings: list[Finding]
    decided: dict[str, SuspectRow]
    dropped: list[SuspectRow]
    counts: dict[str, Any]
    sentence: str

    @property
    def digest(self) -> str:
        """Return a hash of what was changed."""
        lines = "\n".join("\0".join(finding) for finding in sorted(self.findings))
        return hashlib.sha256(lines.encode()).hexdigest()[:16]


def correct(catalogue: Catalogue, file: Path) -> Corrections:
    """Apply a table of corrections.

    A row is about an image of its content and label, wherever that lies now. A row whose image is gone, or has another
    content or label than it had, changes nothing and is counted.

    Args:
        catalogue: The images, as their source has them.
        file: The table.

    Raises:
        InputError: The table cannot be used, or leaves a class without an image.
    """
    flag = f"--data.corrections {file}"
    rows = [row._replace(suggested=composed(row.suggested)) for row in read_decisions(file)]
    classes = set(catalogue.class_names)
    for row in rows:
        if row.decision == "relabel" and row.suggested not in classes:
            raise InputError(
                f"{flag}: {row.name!r} is to be relabelled as {row.suggested!r}, and no image has that label; write "
                f"one of the classes, such as {min(classes)!r}"
            )
    positions, difference = compare_images(
        catalogue, [SplitRow(row.path, row.label, row.sha256, part="", box=row.box) for row in rows]
    )
    lost = {*difference.gone, *difference.changed, *difference.relabelled}
    found = [row for row in rows if row.name not in lost]
    decisions = dict(zip(positions, found, strict=True))

    images, findings = [], []
    for position, image in enumerate(catalogue.images):
        decision = decisions.get(position)
        if decision is not None and decision.decision == "drop":
            findings.append(Finding(image.name, image.label, f"{DROPPED}: by the corrections"))
            continue
        if decision is not None and decision.decision == "relabel":
            findings.append(Finding(image.name, decision.suggested, f"{RELABELLED}: it was {image.label}"))
            image = replace(image, label=decision.suggested)
        images.append(image)
    if emptied := sorted(classes - {image.label for image in images}):
        raise InputError(
            f"{flag}: leaves no image in the class {emptied[0]!r}; take a decision back, or leave the class out"
        )
    counts = {name: sum(row.decision == decision for row in found) for name, decision in _DONE.items()}
    difference.new = []
    return Corrections(
        images=_numbered_anew(images),
        findings=findings,
        decided={catalogue.images[position].name: row for position, row in decisions.items() if row.decision != "drop"},
        dropped=[row for row in found if row.decision == "drop"],
        counts=counts | {"without_effect": len(lost)},
        sentence=f"{flag}: {counted(counts)}"
        + (f"; without effect, since of its images {difference}" if difference else ""),
    )


def counted(counts: Mapping[str, int]) -> str:
    """Say what corrections did, from `Corrections.counts`."""
    return ", ".join(f"{counts[name]} {name}" for name in _DONE)


def _numbered_anew(images: Sequence[ImageRecord]) -> tuple[ImageRecord, ...]:
    """Number groups of duplicates by their first image, as the catalogue does."""
    first: dict[int, int] = {}
    numbers = [first.setdefault(image.duplicates, position) for position, image in enumerate(images)]
    return tuple(
        image if image.duplicates == number else replace(image, duplicates=number)
        for image, number in zip(images, numbers, strict=True)
    )
