"""The table of a run's epochs, history.csv."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.csv_text import csv_records, csv_rows, csv_text
from kth_lightning.io.run_text import damaged, read_text


def append_history(row: Mapping[str, float], file: Path) -> None:
    """Add an epoch's figures, or those of a validation within an epoch.

    Args:
        row: "epoch"; "step", the optimiser's steps up to there; "train/" and "val/" with each of "loss", "acc",
            "kappa" and "recall"; and for an epoch "seconds" and "lr", its last learning rate. NaN becomes an empty
            cell, and so does what a row lacks.
        file: The table.
    """
    before = read_text(file) if file.exists() else ""
    names = (csv_rows(before.partition("\n")[0]) or [[]])[0]
    if not (before.endswith("\n") and row.keys() <= set(names)):
        _write_history([*read_history(file), row], file)
        return
    with file.open("a", encoding="utf-8", newline="") as stream:
        stream.write(csv_text([_cells(row, names)]))


def read_history(file: Path) -> list[dict[str, float]]:
    """Read the epochs' figures, NaN for an empty cell; no row where no epoch has ended.

    A last line that a kill tore is left out.
    """
    if not file.exists():
        return []
    whole = read_text(file).rpartition("\n")[0]
    try:
        return [
            {name: int(cell) if name == "step" else float(cell or "nan") for name, cell in row.items()}
            | {"epoch": int(row["epoch"])}
            for row in csv_records(whole)
        ]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise damaged(file, error) from None


def truncate_history(epoch: int, file: Path) -> None:
    """Drop the rows of this epoch and later ones, as for a run that resumes at the start of `epoch`."""
    if file.exists():
        _write_history([row for row in read_history(file) if row["epoch"] < epoch], file)


def _write_history(rows: Sequence[Mapping[str, float]], file: Path) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [_cells(row, names) for row in rows]
    write_atomically(csv_text([names, *lines] if rows else []), file)


def _cells(row: Mapping[str, float], names: Sequence[str]) -> list[float | str]:
    return [row[name] if math.isfinite(row.get(name, math.nan)) else "" for name in names]
