"""By how much a random split flatters: the same recipes with images of one group in training and test."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.report.model_runs import find_models
from kth_lightning.report.table import figures

FOLDER = "random-split"
"""Name of the folder, in that of a comparison, of the same models on a split that knows no groups."""


def random_split(folder: Path, entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Set the accuracies of a comparison beside those on a random split.

    Args:
        folder: Of the comparison.
        entries: Its models' figures, as `table.figures` makes them.

    Returns:
        For each model on both "model", "n", and with "value", "low" and "high" "acc" and "acc_random_split"; nothing
        where there is no such folder.

    Raises:
        InputError: A run in it is damaged.
    """
    if not (folder / FOLDER).is_dir():
        return []
    models, _ = find_models(folder / FOLDER)
    random = {model.part.model: figures(model.part, reference=False) for model in models}
    return [
        {
            "model": entry["model"],
            "n": entry["n"],
            "acc": _bounded(entry["acc"]),
            "acc_random_split": _bounded(random[entry["model"]]["acc"]),
        }
        for entry in entries
        if entry["model"] in random
    ]


def write_random_split(folder: Path, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write random_split.json into a comparison's folder and return what it says, a sentence a model."""
    rows = random_split(folder, entries)
    write_atomically(json.dumps(rows, indent=2, allow_nan=False) + "\n", folder / "random_split.json")
    return random_split_sentences(rows)


def random_split_sentences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say of each model what a random split would have said, and what the next group gets."""
    return [
        f"{row['model']}: accuracy on a random split {_percent(row['acc_random_split'])}, on new groups "
        f"{_percent(row['acc'])}"
        for row in rows
    ]


def _bounded(acc: Mapping[str, Any]) -> dict[str, Any]:
    return {name: acc[name] for name in ("value", "low", "high")}


def _percent(acc: Mapping[str, Any]) -> str:
    interval = "" if acc["low"] is None else f" ({100 * acc['low']:.1f}–{100 * acc['high']:.1f})"
    return f"{100 * acc['value']:.1f} %{interval}"
