"""The run folder: the one place that knows its files' names."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kth_lightning.errors import InputError
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.csv_text import csv_records, csv_text, without_empty
from kth_lightning.io.history_file import append_history, read_history, truncate_history
from kth_lightning.io.image_name import image_name
from kth_lightning.io.mistakes_file import LookAlike, Mistake, read_records, write_records
from kth_lightning.io.predictions_file import Predictions, read_predictions, write_predictions
from kth_lightning.io.run_json import NewerFormatError, read_json, write_json
from kth_lightning.io.run_text import damaged, read_text

LOCALISATION = ("n", "pointing", "iou_mask", "iou_box")


@dataclass(frozen=True)
class RunFolder:
    """Read and write one run's results.

    Every writer is atomic; every reader raises `InputError` with the file's name where a file is missing or damaged,
    or was written by a later version.

    Attributes:
        path: The folder itself; writers make it.
    """

    path: Path

    @property
    def config(self) -> Path:
        """Name the resolved configuration, which alone repeats the run."""
        return self.path / "config.yaml"

    @property
    def splits(self) -> Path:
        """Name the table of which image is in which part of the split."""
        return self.path / "splits.csv"

    @property
    def start(self) -> Path:
        """Name what the run began with and its configuration does not say."""
        return self.path / "start.json"

    @property
    def metrics(self) -> Path:
        """Name the run's figures, written when all is done."""
        return self.path / "metrics.json"

    @property
    def history(self) -> Path:
        """Name the table with one row an epoch."""
        return self.path / "history.csv"

    @property
    def predictions(self) -> Path:
        """Name the table with one row a test image."""
        return self.path / "predictions.csv"

    @property
    def confusion(self) -> Path:
        """Name the test set's confusion matrix."""
        return self.path / "confusion.csv"

    @property
    def checkpoints(self) -> Path:
        """Name the folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def best_checkpoint(self) -> Path:
        """Name the checkpoint of the best epoch."""
        return self.checkpoints / "best.ckpt"

    @property
    def last_checkpoint(self) -> Path:
        """Name the checkpoint that an interrupted run resumes from."""
        return self.checkpoints / "last.ckpt"

    @property
    def figures(self) -> Path:
        """Name the folder of PNG files."""
        return self.path / "figures"

    @property
    def mistakes(self) -> Path:
        """Name the folder of the most confident mistakes: a table and JPEG files."""
        return self.path / "mistakes"

    @property
    def localisation(self) -> Path:
        """Name the table of how well the activation maps find the animals, one row a class."""
        return self.path / "localisation.csv"

    @property
    def image_statistics(self) -> Path:
        """Name the table of how bright, sharp and large each test image is."""
        return self.path / "image_statistics.csv"

    @property
    def unknown_classes(self) -> Path:
        """Name the table of what an evaluation's images of classes that the checkpoint does not know were taken for."""
        return self.path / "unknown_classes.csv"

    @property
    def report(self) -> Path:
        """Name the page that shows all of it."""
        return self.path / "report.html"

    @property
    def finished(self) -> bool:
        """Tell whether the run has written its figures, its last act."""
        try:
            self.read_metrics()
        except NewerFormatError:
            raise
        except InputError:
            return False
        return True

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write plain nested values as JSON, with null in place of NaN and infinity, and the format."""
        write_json(metrics, self.metrics)

    def read_metrics(self) -> dict[str, Any]:
        """Read what `write_metrics` wrote."""
        return read_json(self.metrics)

    def write_start(self, start: Mapping[str, Any]) -> None:
        """Write plain nested values as JSON, and the format."""
        write_json(start, self.start)

    def read_start(self) -> dict[str, Any]:
        """Read what `write_start` wrote; nothing where the run has no such file."""
        return read_json(self.start) if self.start.exists() else {}

    def append_history(self, row: Mapping[str, float]) -> None:
        """Add an epoch's figures, or those of a validation within one, as `history_file.append_history` says."""
        append_history(row, self.history)

    def read_history(self) -> list[dict[str, float]]:
        """Read the epochs' figures, NaN for an empty cell; no row where no epoch has ended."""
        return read_history(self.history)

    def truncate_history(self, epoch: int) -> None:
        """Drop the rows of this epoch and later ones, as for a run that resumes at the start of `epoch`."""
        truncate_history(epoch, self.history)

    def write_predictions(
        self,
        paths: Sequence[str],
        labels: npt.NDArray[np.int64],
        class_names: Sequence[str],
        probabilities: npt.NDArray[np.floating],
        groups: Sequence[str] = (),
        boxes: Sequence[str] = (),
    ) -> None:
        """Write one row a test image, as `predictions_file.write_predictions` says."""
        write_predictions(paths, labels, class_names, probabilities, groups, boxes, self.predictions)

    def read_predictions(self) -> Predictions:
        """Read what `write_predictions` wrote."""
        return read_predictions(self.predictions)

    def write_confusion(self, matrix: npt.NDArray[np.integer], class_names: Sequence[str]) -> None:
        """Write how many images of each true class (row) got each prediction (column).

        Args:
            matrix: Counts, shape [C, C].
            class_names: C of them.
        """
        rows = [[name, *counts] for name, counts in zip(class_names, matrix.tolist(), strict=True)]
        write_atomically(csv_text([["true class", *class_names], *rows]), self.confusion)

    def write_image_statistics(
        self, paths: Sequence[str], figures: Mapping[str, npt.NDArray[np.floating]], boxes: Sequence[str] = ()
    ) -> None:
        """Write one row a test image: its path, what `image_statistics` measured, and its box where it has one.

        Args:
            paths: As in the catalogue, N of them.
            figures: By name, each of shape [N].
            boxes: N of them, empty for none; or none at all.
        """
        columns = [[f"{value:.6g}" for value in column] for column in figures.values()]
        rows = [["path", *figures, "box"], *map(list, zip(paths, *columns, boxes or [""] * len(paths), strict=True))]
        write_atomically(csv_text(without_empty(rows, "box")), self.image_statistics)

    def read_image_statistics(self) -> dict[str, dict[str, float]]:
        """Read what `write_image_statistics` wrote: the figures of each image by its name; none without a table."""
        if not self.image_statistics.exists():
            return {}
        try:
            rows = csv_records(read_text(self.image_statistics))
            return {
                image_name(row.pop("path"), row.pop("box", "")): {name: float(cell) for name, cell in row.items()}
                for row in rows
            }
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise damaged(self.image_statistics, error) from None

    def write_unknown_classes(self, rows: Sequence[tuple[str, str, str, float, str]]) -> None:
        """Write one row an image of a class that the checkpoint does not know.

        Args:
            rows: Path, label, prediction, confidence, and box, which is empty for a whole image.
        """
        header = ["path", "label", "prediction", "confidence", "box"]
        lines = [[*texts, f"{confidence:.9g}", box] for *texts, confidence, box in rows]
        write_atomically(csv_text(without_empty([header, *lines], "box")), self.unknown_classes)

    def write_mistakes(self, mistakes: Sequence[Mistake]) -> None:
        """Write the table of mistakes, the most confident first; their JPEG files are written by the caller."""
        write_records(mistakes, Mistake, self.mistakes / "mistakes.csv")

    def read_mistakes(self) -> list[Mistake]:
        """Read what `write_mistakes` wrote; no mistake where the run has no such table."""
        return read_records(self.mistakes / "mistakes.csv", Mistake, "confidence")

    def write_look_alikes(self, look_alikes: Sequence[LookAlike]) -> None:
        """Write the table of training images near mistakes; their JPEG files are written by the caller."""
        write_records(look_alikes, LookAlike, self.mistakes / "nearest.csv")

    def read_look_alikes(self) -> list[LookAlike]:
        """Read what `write_look_alikes` wrote; nothing where the run has no such table."""
        return read_records(self.mistakes / "nearest.csv", LookAlike, "distance")

    def write_localisation(self, rows: Sequence[Mapping[str, str | float]]) -> None:
        """Write one row a class: "class", and the number of images and shares of `LOCALISATION`."""
        names = ("class", *LOCALISATION)
        write_atomically(csv_text([names, *([row[name] for name in names] for row in rows)]), self.localisation)

    def read_localisation(self) -> list[dict[str, Any]]:
        """Read what `write_localisation` wrote; no row where the run has no such table."""
        if not self.localisation.exists():
            return []
        try:
            rows = csv_records(read_text(self.localisation))
            return [{"class": row["class"]} | {name: float(row[name]) for name in LOCALISATION} for row in rows]
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise damaged(self.localisation, error) from None
