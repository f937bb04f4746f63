"""Whether figures that stand side by side are of the same test images, and of images that were new."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from kth_lightning.errors import InputError
from kth_lightning.evaluation.leakage import Leakage
from kth_lightning.io.predictions_file import Predictions
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.split_file import read_split

CAUTION = "CAUTION"
"""First word of what must be read before the figures."""


def image_names(run: RunFolder, predictions: Predictions) -> list[str]:
    """Name a run's test images by their content, so that the names of two runs can be compared.

    Returns:
        A name for every prediction, different for copies of one image; path and box where splits.csv does not have it.
    """
    try:
        rows = read_split(run.splits, "")
    except InputError:
        return predictions.names
    copies: Counter[str] = Counter()
    names = {}
    for row in rows:
        copies[row.content] += 1
        names[row.name] = f"{row.content}#{copies[row.content]}"
    return [names.get(name, name) for name in predictions.names]


def inputs(run: RunFolder, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells a run's images from another's, and what it started from.

    Returns:
        "data" and "test", hashes of all its images and of the test images, and "leakage", as in metrics.json.
    """
    hashes = metrics.get("hashes") or {}
    test = hashes.get("test")
    if test is None:
        predictions = run.read_predictions()
        lines = sorted(
            f"{name} {label}" for name, label in zip(predictions.names, predictions.labels.tolist(), strict=True)
        )
        test = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return {"data": hashes.get("data"), "test": test, "leakage": metrics.get("leakage")}


def same_test_images(entries: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether models were tested on the same images, over all their runs."""
    return len({frozenset(item["test"] for item in entry["inputs"]) for entry in entries}) == 1 and not any(
        _is_mixed(entry) for entry in entries
    )


def cautions(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what must be known before figures are set side by side or believed.

    Args:
        entries: As `table.figures` makes them.
    """
    warnings = []
    for entry in entries:
        if _is_mixed(entry):
            warnings.append(
                f"{CAUTION}: the runs of {entry['model']} were made from different images, so their mean is of no one "
                "test set; train them again on the same images (compare --retrain true)"
            )
    if len(entries) > 1 and not same_test_images(entries):
        counts = ", ".join(f"{entry['model']} {entry['n']}" for entry in entries)
        warnings.append(
            f"{CAUTION}: these models were NOT tested on the same images ({counts}), so their figures cannot be "
            "compared; train them again on the same images (compare --retrain true)"
        )
    elif len({item["data"] for entry in entries for item in entry["inputs"]}) > 1:
        warnings.append("The models were tested on the same images, but not trained on the same ones.")
    for entry in entries:
        found_in = [item["leakage"] for item in entry["inputs"] if isinstance(item["leakage"], dict)]
        leaks = [Leakage(*(item.get(field.name) for field in fields(Leakage))) for item in found_in]  # type: ignore[arg-type]
        sentences = dict.fromkeys(sentence for leak in leaks for sentence in leak.sentences)
        warnings += [f"{CAUTION}: {entry['model']}: {sentence}" for sentence in sentences]
    return warnings


def _is_mixed(entry: Mapping[str, Any]) -> bool:
    return len({item["data"] for item in entry["inputs"]}) > 1
