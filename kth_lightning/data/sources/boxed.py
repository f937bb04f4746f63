"""A source's images with the boxes that a detector found in them, or with those that it lists itself, and no others."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from kth_lightning.data.found_boxes import WithoutBox, read_boxes
from kth_lightning.data.sources.source import Candidate, Listing, Source
from kth_lightning.errors import InputError

_CLASSES_NAMED = 5


class BoxedSource(Source):
    """Images of another source, each box of them an example with the image's label.

    Args:
        source: Of the images, without boxes.
        boxes: MegaDetector's JSON, or a table with the columns path and box.
        min_confidence: From which a detection counts.
        without_box: "whole" to take an image without a box as it is, "leave_out" to leave it out.
    """

    def __init__(self, source: Source, boxes: Path, min_confidence: float, without_box: WithoutBox) -> None:
        self.source = source
        self.boxes = boxes
        self.min_confidence = min_confidence
        self.without_box = without_box

    def list(self, cache_dir: Path) -> Listing:
        """List the boxes of the source's files.

        Raises:
            InputError: The source or the file of boxes cannot be used, or they do not belong together.
        """
        listing = self.source.list(cache_dir)
        read = read_boxes(self.boxes, self.min_confidence, "--data.boxes")
        read.require_some(f"--data.min_box_confidence {self.min_confidence:g}")
        found = read.below([listing.root])
        candidates: list[Candidate] = []
        left: list[Candidate] = []
        for candidate in listing.candidates:
            if candidate.box is not None:
                raise InputError(
                    f"--data.boxes {self.boxes}: the images have boxes already, such as {candidate.box} of "
                    f"{candidate.file.name}; leave the flag out, or the column"
                )
            boxes = found.of(candidate.file)
            candidates += [replace(candidate, box=box) for box in boxes]
            if not boxes:
                (candidates if self.without_box == "whole" else left).append(candidate)
        remark = found.describe(self.without_box)
        return _without(listing, candidates, left, f"none in {self.boxes.name}", remark)


class OnlyBoxes(Source):
    """The boxes that another source lists, without the images of which it lists none.

    Args:
        source: Of images with boxes.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    def list(self, cache_dir: Path) -> Listing:
        """List the boxes.

        Raises:
            InputError: The source cannot be used, or has no box.
        """
        listing = self.source.list(cache_dir)
        boxed = [candidate for candidate in listing.candidates if candidate.box is not None]
        if not boxed:
            raise InputError(
                "--data.without_box leave_out: no image has a box; it goes with --data.boxes, or with a column box of "
                "--data.table, so leave it at whole"
            )
        left = [candidate for candidate in listing.candidates if candidate.box is None]
        boxes, without = f"{len(boxed)} box{'es' * (len(boxed) > 1)}", f"{len(left)} images have none"
        remark = f"--data.without_box leave_out: {boxes}; {'1 image has none' if len(left) == 1 else without}"
        return _without(listing, boxed, left, "its cell is empty", remark if left else "")


def _without(
    listing: Listing, candidates: Iterable[Candidate], left: Iterable[Candidate], why: str, remark: str
) -> Listing:
    """Keep some of a listing's images, and say which classes lose what."""
    classes = Counter(candidate.label for candidate in left)
    if classes:
        remark += f"; left out: {', '.join(f'{name} {count}' for name, count in classes.most_common(_CLASSES_NAMED))}"
        remark += f" and {len(classes) - _CLASSES_NAMED} more classes" if len(classes) > _CLASSES_NAMED else ""
    return replace(
        listing,
        candidates=[*candidates],
        problems=[*listing.problems, *((candidate.file, f"no box: {why}") for candidate in left)],
        remarks=[*listing.remarks, *filter(None, [remark])],
    )
