"""The run folder: the one place that knows its files' names and how they are written."""

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from kth_lightning.errors import InputError
from kth_lightning.io.csv_text import csv_records, csv_rows, csv_text

FORMAT = 1
"""Of run folders; it rises when a file of theirs changes its meaning."""

PROBABILITY = "p:"
LOCALISATION = ("n", "pointing", "iou_mask", "iou_box")


def write_atomically(text: str, file: Path) -> None:
    """Write text as UTF-8 such that the file is the old one or the whole new one, whenever the process ends.

    Folders above the file are made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class Predictions:
    """Hold what a model said about a set of images.

    Attributes:
        paths: As in the catalogue, N of them.
        class_names: C of them.
        labels: Indices of the true classes in `class_names`, shape [N].
        probabilities: Shape [N, C].
        groups: What each image belongs to, empty where it belongs to nothing; N of them.
    """

    paths: list[str]
    class_names: list[str]
    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    groups: list[str]


@dataclass(frozen=True)
class Mistake:
    """Describe a test image that got a wrong label.

    Attributes:
        path: As in the catalogue.
        label: True class.
        prediction: Class that was named.
        confidence: Probability of the prediction.
        image: Name of a JPEG inside the folder of mistakes.
        map: Name of another, the activation map of the prediction laid over the image.
    """

    path: str
    label: str
    prediction: str
    confidence: float
    image: str
    map: str


@dataclass(frozen=True)
class LookAlike:
    """Describe a training image that is near a mistake's image.

    Attributes:
        mistake: `Mistake.image` of that.
        path: As in the catalogue.
        label: Its class.
        distance: 1 less the cosine of the angle between the two images' vectors.
        image: Name of a JPEG inside the folder of mistakes.
    """

    mistake: str
    path: str
    label: str
    distance: float
    image: str


_Record = TypeVar("_Record", Mistake, LookAlike)


class NewerFormatError(InputError):
    """Refuse a run folder that a later version wrote, which may mean other things by the same words."""

    def __init__(self, file: Path, number: int) -> None:
        super().__init__(
            f"{file} was written by a newer kth_lightning (its format is {number}, and this one knows {FORMAT}); "
            "update kth_lightning, or give another folder"
        )


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
        _write_json(metrics, self.metrics)

    def read_metrics(self) -> dict[str, Any]:
        """Read what `write_metrics` wrote."""
        return _read_json(self.metrics)

    def write_start(self, start: Mapping[str, Any]) -> None:
        """Write plain nested values as JSON, and the format."""
        _write_json(start, self.start)

    def read_start(self) -> dict[str, Any]:
        """Read what `write_start` wrote; nothing where the run has no such file."""
        return _read_json(self.start) if self.start.exists() else {}

    def append_history(self, row: Mapping[str, float]) -> None:
        """Add an epoch's figures, or those of a validation within an epoch.

        Args:
            row: "epoch"; "step", the optimiser's steps up to there; "train/" and "val/" with each of "loss", "acc",
                "kappa" and "recall"; and for an epoch "seconds" and "lr", its last learning rate. NaN becomes an empty
                cell, and so does what a row lacks.
        """
        before = _text(self.history) if self.history.exists() else ""
        names = (csv_rows(before.partition("\n")[0]) or [[]])[0]
        if not (before.endswith("\n") and row.keys() <= set(names)):
            self._write_history([*self.read_history(), row])
            return
        with self.history.open("a", encoding="utf-8", newline="") as stream:
            stream.write(csv_text([_cells(row, names)]))

    def read_history(self) -> list[dict[str, float]]:
        """Read the epochs' figures, NaN for an empty cell; no row where no epoch has ended.

        A last line that a kill tore is left out.
        """
        if not self.history.exists():
            return []
        whole = _text(self.history).rpartition("\n")[0]
        try:
            return [
                {name: int(cell) if name == "step" else float(cell or "nan") for name, cell in row.items()}
                | {"epoch": int(row["epoch"])}
                for row in csv_records(whole)
            ]
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise _damaged(self.history, error) from None

    def truncate_history(self, epoch: int) -> None:
        """Drop the rows of this epoch and later ones, as for a run that resumes at the start of `epoch`."""
        if self.history.exists():
            self._write_history([row for row in self.read_history() if row["epoch"] < epoch])

    def _write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        names = list(dict.fromkeys(name for row in rows for name in row))
        lines = [_cells(row, names) for row in rows]
        write_atomically(csv_text([names, *lines] if rows else []), self.history)

    def write_predictions(
        self,
        paths: Sequence[str],
        labels: npt.NDArray[np.int64],
        class_names: Sequence[str],
        probabilities: npt.NDArray[np.floating],
        groups: Sequence[str] = (),
    ) -> None:
        """Write one row a test image: path, label, prediction, correct (0 or 1), confidence, and "p:<class>" columns.

        Where images have groups, a column "group" stands before the probabilities.

        Probabilities keep nine significant digits, enough to give a float32 back as it was.

        Args:
            paths: As in the catalogue, N of them.
            labels: Indices of the true classes in `class_names`, shape [N].
            class_names: C of them.
            probabilities: Shape [N, C].
            groups: N of them, empty for none; or none at all.
        """
        more = [[group] for group in groups] if any(groups) else [[] for _ in paths]
        header = ["path", "label", "prediction", "correct", "confidence", *(["group"] if any(groups) else [])]
        header += [PROBABILITY + name for name in class_names]
        best = probabilities.argmax(axis=1)
        rows = [
            [path, class_names[label], class_names[named], int(label == named), f"{row[named]:.9g}", *group]
            + [f"{probability:.9g}" for probability in row]
            for path, label, named, row, group in zip(paths, labels, best, probabilities, more, strict=True)
        ]
        write_atomically(csv_text([header, *rows]), self.predictions)

    def read_predictions(self) -> Predictions:
        """Read what `write_predictions` wrote."""
        try:
            header, *rows = csv_rows(_text(self.predictions))
            if not rows:
                raise ValueError("no row")
            columns = [column for column, name in enumerate(header) if name.startswith(PROBABILITY)]
            class_names = [header[column].removeprefix(PROBABILITY) for column in columns]
            path, label = header.index("path"), header.index("label")
            group = header.index("group") if "group" in header else None
            return Predictions(
                paths=[row[path] for row in rows],
                class_names=class_names,
                labels=np.array([class_names.index(row[label]) for row in rows], dtype=np.int64),
                probabilities=np.array([[float(row[column]) for column in columns] for row in rows]),
                groups=["" if group is None else row[group] for row in rows],
            )
        except (IndexError, ValueError, csv.Error) as error:
            raise _damaged(self.predictions, error) from None

    def write_confusion(self, matrix: npt.NDArray[np.integer], class_names: Sequence[str]) -> None:
        """Write how many images of each true class (row) got each prediction (column).

        Args:
            matrix: Counts, shape [C, C].
            class_names: C of them.
        """
        rows = [[name, *counts] for name, counts in zip(class_names, matrix.tolist(), strict=True)]
        write_atomically(csv_text([["true class", *class_names], *rows]), self.confusion)

    def write_image_statistics(self, paths: Sequence[str], figures: Mapping[str, npt.NDArray[np.floating]]) -> None:
        """Write one row a test image: its path, and what `image_statistics` measured.

        Args:
            paths: As in the catalogue, N of them.
            figures: By name, each of shape [N].
        """
        columns = [[f"{value:.6g}" for value in column] for column in figures.values()]
        rows = [["path", *figures], *map(list, zip(paths, *columns, strict=True))]
        write_atomically(csv_text(rows), self.image_statistics)

    def read_image_statistics(self) -> dict[str, dict[str, float]]:
        """Read what `write_image_statistics` wrote: for each path its figures; nothing where the run has no table."""
        if not self.image_statistics.exists():
            return {}
        try:
            rows = csv_records(_text(self.image_statistics))
            return {row["path"]: {name: float(cell) for name, cell in row.items() if name != "path"} for row in rows}
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise _damaged(self.image_statistics, error) from None

    def write_unknown_classes(self, rows: Sequence[tuple[str, str, str, float]]) -> None:
        """Write one row an image of a class that the checkpoint does not know: path, label, prediction, confidence."""
        header = ["path", "label", "prediction", "confidence"]
        lines = [[path, label, prediction, f"{confidence:.9g}"] for path, label, prediction, confidence in rows]
        write_atomically(csv_text([header, *lines]), self.unknown_classes)

    def write_mistakes(self, mistakes: Sequence[Mistake]) -> None:
        """Write the table of mistakes, the most confident first; their JPEG files are written by the caller."""
        _write_records(mistakes, Mistake, self.mistakes / "mistakes.csv")

    def read_mistakes(self) -> list[Mistake]:
        """Read what `write_mistakes` wrote; no mistake where the run has no such table."""
        return _read_records(self.mistakes / "mistakes.csv", Mistake, "confidence")

    def write_look_alikes(self, look_alikes: Sequence[LookAlike]) -> None:
        """Write the table of training images near mistakes; their JPEG files are written by the caller."""
        _write_records(look_alikes, LookAlike, self.mistakes / "nearest.csv")

    def read_look_alikes(self) -> list[LookAlike]:
        """Read what `write_look_alikes` wrote; nothing where the run has no such table."""
        return _read_records(self.mistakes / "nearest.csv", LookAlike, "distance")

    def write_localisation(self, rows: Sequence[Mapping[str, str | float]]) -> None:
        """Write one row a class: "class", and the number of images and shares of `LOCALISATION`."""
        names = ("class", *LOCALISATION)
        write_atomically(csv_text([names, *([row[name] for name in names] for row in rows)]), self.localisation)

    def read_localisation(self) -> list[dict[str, Any]]:
        """Read what `write_localisation` wrote; no row where the run has no such table."""
        if not self.localisation.exists():
            return []
        try:
            rows = csv_records(_text(self.localisation))
            return [{"class": row["class"]} | {name: float(row[name]) for name in LOCALISATION} for row in rows]
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise _damaged(self.localisation, error) from None


def _write_json(content: Mapping[str, Any], file: Path) -> None:
    text = json.dumps({"format": FORMAT} | _finite(content), indent=2, allow_nan=False, ensure_ascii=False)
    write_atomically(text + "\n", file)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(_text(file))
    except (json.JSONDecodeError, RecursionError) as error:
        raise _damaged(file, error) from None
    if not isinstance(content, dict):
        raise _damaged(file, "no JSON object")
    number = content.get("format", FORMAT)
    if isinstance(number, int) and number > FORMAT:
        raise NewerFormatError(file, number)
    if number != FORMAT:
        raise _damaged(file, f"format {number!r}")
    return content


def _write_records(items: Sequence[_Record], kind: type[_Record], file: Path) -> None:
    names: list[str] = [field.name for field in fields(kind)]
    rows: list[list[Any]] = [[getattr(item, name) for name in names] for item in items]
    write_atomically(csv_text([names, *rows]), file)


def _read_records(file: Path, kind: type[_Record], number: str) -> list[_Record]:
    """Read rows whose cells are texts but for one number; none where there is no file."""
    if not file.exists():
        return []
    try:
        return [kind(**row | {number: float(row[number])}) for row in csv_records(_text(file))]  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise _damaged(file, error) from None


def _cells(row: Mapping[str, float], names: Sequence[str]) -> list[float | str]:
    return [row[name] if math.isfinite(row.get(name, math.nan)) else "" for name in names]


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            return stream.read()
    except FileNotFoundError:
        raise InputError(f"{file} is missing; its run has not finished, so start that run again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(file, error) from None


def _damaged(file: Path, error: object) -> InputError:
    return InputError(f"{file} is damaged ({error}); delete it and start its run again")
