"""The table of predictions: whole under its name, or not there."""

import csv
import glob
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kth_lightning.data.box import Crop, FileOrCrop
from kth_lightning.io.csv_text import csv_rows, csv_text
from kth_lightning.io.run_lock import hold
from kth_lightning.predict.doubt import UNKNOWN
from kth_lightning.predict.parquet_file import write_parquet
from kth_lightning.predict.predictor import Prediction

SEPARATOR = " | "
"""Between the classes of a set in a cell."""


class PredictionFile:
    """Write predictions, one row an image, such that an interrupted command can go on.

    Rows go into a hidden file beside the table, which gets the table's name when all are there.

    Args:
        file: Ends in .csv, .jsonl or .parquet; folders above it are made.
        key: What the predictions depend on beside the images; rows made under another are not gone on with.
        top_k: How many classes a row names.
        withheld: Whether labels may be withheld; the column most_probable then has the class all the same.
        sets: Whether there is a column for sets of classes.
        run: What every row says of the checkpoint that made it.
        boxes: Whether there is a column for the box that a row is about.

    Attributes:
        rows: How many there are.
        unknown: How many of them have no label since none is sure enough.
        errors: How many of them are of images that could not be read.
        first_error: The first of those, with its reason.

    Raises:
        InputError: Another command is writing it.
        OSError: It cannot be written.
    """

    def __init__(
        self,
        file: Path,
        key: str,
        top_k: int,
        withheld: bool = False,
        sets: bool = False,
        run: str = "",
        boxes: bool = False,
    ) -> None:
        self.file = file
        self.run = run
        self.rows = self.unknown = self.errors = 0
        self.first_error = ""
        ranks = [name for rank in range(2, top_k + 1) for name in (f"label_{rank}", f"probability_{rank}")]
        doubt = [*(["most_probable"] if withheld else []), *(["set"] if sets else [])]
        box = ["box"] if boxes else []
        self._columns = ["path", *box, "label", "probability", *ranks, *doubt, "novelty", "run", "error"]
        self._is_csv = file.suffix.lower() == ".csv"
        digest = hashlib.sha256(f"{key} {self._columns}".encode(errors="backslashreplace")).hexdigest()
        self._part = file.with_name(f".{file.name}.{digest[:12]}.part")
        file.parent.mkdir(parents=True, exist_ok=True)
        busy = f"--output: another command is writing {file}; wait until it has ended, or name another file"
        self._lock = hold(file.with_name(f".{file.name}.lock"), busy)
        self._stream = self._part.open("a+b")

    def resume(self, images: Iterable[FileOrCrop]) -> int:
        """Keep the rows that an earlier command left, as far as they are these images', and return their number.

        An image that was changed or put in its place after the last row was written has none.
        """
        written = os.fstat(self._stream.fileno()).st_mtime_ns
        header = self._line(dict(zip(self._columns, self._columns, strict=True))) if self._is_csv else b""
        self._stream.seek(0)
        end = len(header) if self._stream.read(len(header)) == header else 0
        for image, line in zip(images, self._stream if end == len(header) else (), strict=False):
            row = self._row(line)
            if {name: row.get(name) or None for name in ("path", "box")} != {"box": None} | self._cells(image):
                break
            if _changed(image.file if isinstance(image, Crop) else image) > written:
                break
            self._count(row)
            end += len(line)
        self._stream.truncate(end)
        if not end:
            self._stream.write(header)
        return self.rows

    def write(self, image: FileOrCrop, prediction: Prediction) -> None:
        """Add a row: path, box, label, probability, label_2, ..., most_probable, set, novelty, run, error.

        What there is not is left empty.
        """
        row: dict[str, Any] = dict.fromkeys(self._columns)
        row |= self._cells(image) | {"label": prediction.label, "run": self.run, "error": prediction.error}
        for rank, (label, value) in enumerate(prediction.top_k, start=1):
            suffix = f"_{rank}" if rank > 1 else ""
            row[f"probability{suffix}"] = float(f"{value:.6g}")
            if suffix:
                row[f"label{suffix}"] = label
        if prediction.top_k and "most_probable" in row:
            row["most_probable"] = prediction.top_k[0][0]
        if prediction.set is not None:
            row["set"] = SEPARATOR.join(prediction.set) if self._is_csv else list(prediction.set)
        if prediction.novelty is not None:
            row["novelty"] = float(f"{prediction.novelty:.4g}")
        self._stream.write(self._line(row))
        self._count(row)

    def close(self) -> None:
        """Leave the rows for another command to go on with."""
        self._stream.close()
        if self._lock.is_locked:
            Path(self._lock.lock_file).unlink()  # while it is held: who waits for it then sees that it is gone
            self._lock.release()

    def finish(self) -> None:
        """Give the file its name, and remove what commands with other settings left of it."""
        self._stream.close()
        if self.file.suffix.lower() == ".parquet":
            table = self._part.with_suffix(".table.part")
            write_parquet(self._part, self._columns, table)
            table.replace(self.file)
        else:
            self._part.replace(self.file)
        for left in self.file.parent.glob(f".{glob.escape(self.file.name)}.*.part"):
            left.unlink()

    def _cells(self, image: FileOrCrop) -> dict[str, Any]:
        """Return the cells that say what a row is about."""
        if not isinstance(image, Crop):
            return {"path": _name(image)}
        return {"path": _name(image.file), "box": str(image.box) if self._is_csv else list(image.box)}

    def _line(self, row: dict[str, Any]) -> bytes:
        if not self._is_csv:
            return json.dumps(row, ensure_ascii=False).encode() + b"\n"
        return csv_text([list(row.values())]).encode()

    def _row(self, line: bytes) -> dict[str, Any]:
        """Read a row back; empty where a kill tore it."""
        try:
            if not line.endswith(b"\n"):
                return {}
            if not self._is_csv:
                return json.loads(line)
            return dict(zip(self._columns, csv_rows(line.decode(), ",")[0], strict=True))
        except (ValueError, IndexError, RecursionError, csv.Error):
            return {}

    def _count(self, row: dict[str, Any]) -> None:
        self.rows += 1
        self.unknown += "most_probable" in row and row["label"] == UNKNOWN
        if row["error"]:
            self.errors += 1
            self.first_error = self.first_error or f"{row['path']}: {row['error']}"


def _changed(file: Path) -> int:
    """Return when a file was written or moved to where it is, in nanoseconds; 0 where there is none."""
    try:
        stat = file.stat()
    except OSError:
        return 0
    return max(stat.st_mtime_ns, stat.st_ctime_ns)


def _name(image: Path) -> str:
    """Write a path with escapes for bytes that are not UTF-8."""
    return os.fsencode(image).decode(errors="backslashreplace")
