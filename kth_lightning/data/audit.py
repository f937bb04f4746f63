"""The audit: which files of a data set are left out, and why."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kth_lightning.data.catalogue import ImageRecord
from kth_lightning.data.sources.source import TWICE
from kth_lightning.io.csv_text import csv_text, read_csv

NO_IMAGE = "no image"
CAMERA_RAW = "camera raw"
DROPPED = "dropped"
RELABELLED = "relabelled"
BROKEN_DATE = "EXIF date that is none"
SEVERAL_PAGES = "several pages"
MASK_UNREADABLE = "unreadable mask"
MASK_OF_OTHER_SIZE = "mask of another size"
_NO_LOSS = (
    NO_IMAGE, TWICE, RELABELLED, BROKEN_DATE, SEVERAL_PAGES, "mask without an image", MASK_OF_OTHER_SIZE,
    MASK_UNREADABLE,
)  # fmt: skip
_MUCH = 0.1  # of a class's images
_CLASSES_NAMED = 3


class Finding(NamedTuple):
    """A row of audit.csv: `reason` is a kind, ":" and details, with what to do behind ";"; `of` a duplicate's other."""

    path: str
    label: str
    reason: str
    of: str = ""

    @property
    def kind(self) -> str:
        """Return what it has in common with others."""
        return self.reason.partition(":")[0]


def write_audit(findings: Iterable[Finding], file: Path) -> None:
    """Write findings as CSV, sorted."""
    file.write_text(csv_text([Finding._fields, *sorted(findings)]), encoding="utf-8", newline="")


def read_audit(file: Path) -> list[Finding]:
    """Read what `write_audit` wrote."""
    return [Finding(**row) for row in read_csv(file)]


def count_left_out(findings: Iterable[Finding], usable: Iterable[str]) -> dict[str, Any]:
    """Count the images that are not used, as metrics.json has it.

    Args:
        findings: Those that are of no image (other files, masks) or of an image that is used are not counted.
        usable: The class of each image that is used.

    Returns:
        "files", the images in all; "left_out", those that are not used; "reasons", how many for each kind of reason;
        "classes", for each class that loses some, "left_out" and "of"; "ways_out", what to do for some kinds.
    """
    used = Counter(usable)
    lost = [item for item in findings if not item.of and item.kind not in _NO_LOSS]
    return {
        "files": used.total() + len(lost),
        "left_out": len(lost),
        "reasons": dict(Counter(item.kind for item in lost).most_common()),
        "classes": {
            label: {"left_out": count, "of": count + used[label]}
            for label, count in sorted(Counter(item.label for item in lost if item.label).items())
        },
        "ways_out": ways_out(lost),
    }


def ways_out(findings: Iterable[Finding]) -> dict[str, str]:
    """Return what to do about each kind, where something can be done about it."""
    return {item.kind: item.reason.partition("; ")[2] for item in findings if "; " in item.reason}


def left_out_sentence(counts: Mapping[str, Any]) -> str:
    """Say what `count_left_out` counted, louder where a class loses more than a tenth; empty where nothing is lost."""
    if not counts["left_out"]:
        return ""
    classes = counts["classes"]
    text = f"{counts['left_out']} of {counts['files']} files left out: "
    text += ", ".join(f"{count} {kind}" for kind, count in counts["reasons"].items())
    if len(classes) == 1 and sum(row["left_out"] for row in classes.values()) == counts["left_out"]:
        text += f", all {next(iter(classes))}"
    text += "".join(f"; {kind}: {way}" for kind, way in counts["ways_out"].items())
    losing = sorted(
        ((row["left_out"] / row["of"], label) for label, row in classes.items() if row["left_out"] > _MUCH * row["of"]),
        reverse=True,
    )
    if not losing:
        return text
    named = [f"{label} loses {classes[label]['left_out']} of its {classes[label]['of']}" for _, label in losing]
    more = f" and {len(named) - _CLASSES_NAMED} other classes lose much" if len(named) > _CLASSES_NAMED else ""
    return f"warning: {text}; {', '.join(named[:_CLASSES_NAMED])}{more}"


def duplicate_findings(images: Sequence[ImageRecord]) -> list[Finding]:
    """Return a finding for every image that duplicates an earlier one."""
    findings = []
    by_digest: dict[str, ImageRecord] = {}
    for index, image in enumerate(images):
        same = by_digest.setdefault(image.content, image)
        if image.duplicates != index:
            other, kind = (same, "exact") if same is not image else (images[image.duplicates], "near")
            position = "" if image.label == other.label else " in another class"
            findings.append(Finding(image.name, image.label, f"{kind} duplicate{position}", other.name))
    return findings
