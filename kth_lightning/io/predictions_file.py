"""The table of what a model said about test images, predictions.csv."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.csv_text import csv_rows, csv_text
from kth_lightning.io.image_name import image_name
from kth_lightning.io.run_text import damaged, read_text

PROBABILITY = "p:"
"""Begins the names of the columns of probabilities."""


@dataclass(frozen=True)
class Predictions:
    """Hold what a model said about a set of images.

    Attributes:
        paths: As in the catalogue, N of them.
        class_names: C of them.
        labels: Indices of the true classes in `class_names`, shape [N].
        probabilities: Shape [N, C].
        groups: What each image belongs to, empty where it belongs to nothing; N of them.
        boxes: The part of the file that each image is, empty for the whole; N of them.
    """

    paths: list[str]
    class_names: list[str]
    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    groups: list[str]
    boxes: list[str]

    @property
    def names(self) -> list[str]:
        """Return what tells each image from the others: its path, and its box where it has one."""
        return list(map(image_name, self.paths, self.boxes))


def write_predictions(
    paths: Sequence[str],
    labels: npt.NDArray[np.int64],
    class_names: Sequence[str],
    probabilities: npt.NDArray[np.floating],
    groups: Sequence[str],
    boxes: Sequence[str],
    file: Path,
) -> None:
    """Write one row a test image: path, label, prediction, correct (0 or 1), confidence, and "p:<class>" columns.

    Where images have groups or boxes, the columns "group" and "box" stand before the probabilities.

    Probabilities keep nine significant digits, enough to give a float32 back as it was.

    Args:
        paths: As in the catalogue, N of them.
        labels: Indices of the true classes in `class_names`, shape [N].
        class_names: C of them.
        probabilities: Shape [N, C].
        groups: N of them, empty for none; or none at all.
        boxes: Likewise.
        file: The table.
    """
    further = {name: cells for name, cells in (("group", groups), ("box", boxes)) if any(cells)}
    more = [list(cells) for cells in zip(*further.values(), strict=True)] or [[] for _ in paths]
    header = ["path", "label", "prediction", "correct", "confidence", *further]
    header += [PROBABILITY + name for name in class_names]
    best = probabilities.argmax(axis=1)
    rows = [
        [path, class_names[label], class_names[named], int(label == named), f"{row[named]:.9g}", *cells]
        + [f"{probability:.9g}" for probability in row]
        for path, label, named, row, cells in zip(paths, labels, best, probabilities, more, strict=True)
    ]
    write_atomically(csv_text([header, *rows]), file)


def read_predictions(file: Path) -> Predictions:
    """Read what `write_predictions` wrote."""
    try:
        header, *rows = csv_rows(read_text(file))
        if not rows:
            raise ValueError("no row")
        columns = [column for column, name in enumerate(header) if name.startswith(PROBABILITY)]
        class_names = [header[column].removeprefix(PROBABILITY) for column in columns]
        path, label = header.index("path"), header.index("label")
        groups, boxes = (
            [row[header.index(name)] for row in rows] if name in header else [""] * len(rows)
            for name in ("group", "box")
        )
        return Predictions(
            paths=[row[path] for row in rows],
            class_names=class_names,
            labels=np.array([class_names.index(row[label]) for row in rows], dtype=np.int64),
            probabilities=np.array([[float(row[column]) for column in columns] for row in rows]),
            groups=groups,
            boxes=boxes,
        )
    except (IndexError, ValueError, csv.Error) as error:
        raise damaged(file, error) from None
