"""The images that a command line names, or the boxes in them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from kth_lightning.data.box import Crop, FileOrCrop
from kth_lightning.data.found_boxes import MIN_CONFIDENCE, WithoutBox, read_boxes
from kth_lightning.errors import InputError


class BoxedImages:
    """Images and boxes, listed anew at every pass.

    Args:
        listed: The images, which may be passed over several times.
        paths: Of the command line, in which the images were found.
        boxes: MegaDetector's JSON, or a table with the columns path and box; None for whole images.
        min_confidence: From which a detection counts.
        without_box: Whether an image without a box is taken whole or left out.

    Raises:
        InputError: The file of boxes cannot be used, or a setting goes with one and there is none.
    """

    def __init__(
        self,
        listed: Iterable[Path],
        paths: Sequence[str],
        boxes: str | None,
        min_confidence: float = MIN_CONFIDENCE,
        without_box: WithoutBox = "whole",
    ) -> None:
        if not 0 <= min_confidence <= 1:
            raise InputError(f"--min_box_confidence {min_confidence}: give a number from 0 to 1")
        if boxes is None and min_confidence != MIN_CONFIDENCE:
            raise InputError(f"--min_box_confidence {min_confidence} goes with --boxes; leave it out")
        if boxes is None and without_box != "whole":
            raise InputError(f"--without_box {without_box} goes with --boxes; leave it out")
        self.listed = listed
        self.without_box = without_box
        self._boxes = None
        if boxes is not None:
            folders = [_folder(Path(path).expanduser().absolute()) for path in paths]
            self._boxes = read_boxes(Path(boxes), min_confidence, "--boxes").below([*folders, Path.cwd()])
        self._passed = self._boxes

    def __iter__(self) -> Iterator[FileOrCrop]:
        if self._boxes is None:
            yield from self.listed
            return
        found = replace(self._boxes, used=0, images=0, without=[], unread=[], missing=[])
        for file in self.listed:
            boxes = found.of(file)
            yield from (Crop(file, box) for box in boxes)
            if not boxes and self.without_box == "whole":
                yield file
        found.describe(self.without_box)  # refuses a file that has none of the images
        self._passed = found

    def notes(self, trained_on_boxes: bool) -> Iterator[str]:
        """Say which boxes were found, and whether the classifier was trained on such; known after a whole pass."""
        if self._passed is not None:
            yield self._passed.describe(self.without_box)
        if trained_on_boxes and self._boxes is None:
            yield "the classifier was trained on boxes of images, and these images are whole; give --boxes"
        elif self._boxes is not None and not trained_on_boxes:
            yield "the classifier was trained on whole images, and these are boxes; train it with --data.boxes as well"


def _folder(path: Path) -> Path:
    """Return the folder that a path of the command line names, or that a file or the matches of a glob lie in."""
    while not path.is_dir():
        path = path.parent
    return path
