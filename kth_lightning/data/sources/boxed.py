"""A source's images with the boxes that a detector found in them."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from kth_lightning.data.found_boxes import WithoutBox, read_boxes
from kth_lightning.data.sources.source import Listing, Source
from kth_lightning.errors import InputError

_CLASSES_NAMED = 5


class BoxedSource(Source):
    """Images of another source, each box of them an example with the image's label.

    Args:
        source: Of the images, without boxes.
        boxes: MegaDetector's JSON, or a table with the columns path and box.
        min_confidence: From which one of MegaDetector's detections counts.
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
        found = read_boxes(self.boxes, self.min_confidence, "--data.boxes").below([listing.root])
        candidates, left = [], Counter[str]()
        problems = [*listing.problems]
        for candidate in listing.candidates:
            if candidate.box is not None:
                raise InputError(
                    f"--data.boxes {self.boxes}: the images have boxes already, such as {candidate.box} of "
                    f"{candidate.file.name}; leave the flag out, or the column"
                )
            boxes = found.of(candidate.file)
            candidates += [replace(candidate, box=box) for box in boxes]
            if not boxes and self.without_box == "whole":
                candidates.append(candidate)
            elif not boxes:
                left[candidate.label] += 1
                problems.append((candidate.file, f"no box: none in {self.boxes.name}"))
        remark = found.describe(self.without_box)
        if left:
            remark += f"; left out: {', '.join(f'{name} {count}' for name, count in left.most_common(_CLASSES_NAMED))}"
            remark += f" and {len(left) - _CLASSES_NAMED} more classes" if len(left) > _CLASSES_NAMED else ""
        return replace(listing, candidates=candidates, problems=problems, remarks=[*listing.remarks, remark])
