"""What the report says of one model: its mistakes, classes, confidence, maps and curves."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

from kth_lightning.drawing.attempt import attempt
from kth_lightning.drawing.figures import svg_uri
from kth_lightning.evaluation.calibration import expected_calibration_error
from kth_lightning.evaluation.class_figures import class_figures
from kth_lightning.evaluation.statistics import confusion_matrix
from kth_lightning.report.charts import (
    CURVES,
    Course,
    confusion_figure,
    curve_figure,
    reliability_figure,
)
from kth_lightning.report.imbalance import count_classes
from kth_lightning.report.model_runs import ModelRuns
from kth_lightning.report.trust_view import risk_coverage_figure, trust_view
from kth_lightning.report.verdict import capital, score

MISTAKES_SHOWN, PAIRS_SHOWN, GROUPS_SHOWN = 12, 10, 100
IMAGE_SIDE = 480
"""Longest side in pixels of a mistake's image."""
NAMED_CLASSES = 100
"""With more classes the confusion matrix is an image without names."""

Views = dict[str, Any]


def model_view(model: ModelRuns, entry: Mapping[str, Any], title: str, name: str) -> Views:
    """Gather what the page says of one model.

    Args:
        model: Its runs.
        entry: Its figures, as `table.figures` makes them.
        title: What it is called.
        name: Of its place on the page.
    """
    labels, predictions = model.labels, model.probabilities.argmax(axis=1)
    matrix = confusion_matrix(labels, predictions, len(model.class_names))
    return {
        "id": name,
        "title": capital(title),
        "score": score(model, entry),
        "runs": len(model.metrics),
        "repeated": model.repeated,
        "mistakes": _mistakes(model),
        "wrong": int((~model.right).sum()),
        "tested": len(labels),
        "confused": _confused(matrix, model.class_names),
        "confusion": _confusion(matrix, model.class_names),
        "classes": _classes(model),
        "groups": _groups(entry),
        "reliability": _reliability_view(model),
        "trust": _trust(model),
        "localisation": _localisation(model),
        "curves": _curves(model),
    }


def _mistakes(model: ModelRuns) -> list[Views]:
    """List the most confident wrong predictions, with their images where the run has them."""
    names, wrong = model.class_names, []
    for run, predictions in zip(model.part.runs, model.predictions, strict=True):
        named, images = predictions.probabilities.argmax(axis=1), predictions.names
        for row in np.flatnonzero(named != predictions.labels):
            confidence = float(predictions.probabilities[row, named[row]])
            wrong.append((confidence, run, images[row], names[predictions.labels[row]], names[named[row]]))
    wrong = sorted(wrong, key=lambda item: -item[0])[:MISTAKES_SHOWN]
    kept = {(run.path, mistake.name): mistake for run in model.part.runs for mistake in run.read_mistakes()}
    alike: dict[tuple[Path, str], list[Views]] = {}
    for run in model.part.runs:
        for item in run.read_look_alikes():
            uri = _image_uri(run.mistakes / item.image)
            view = {"path": item.name, "label": item.label, "distance": f"{item.distance:.2f}", "image": uri}
            alike.setdefault((run.path, item.mistake), []).append(view)
    views = []
    for confidence, run, name, label, prediction in wrong:
        mistake = kept.get((run.path, name))
        views.append(
            {
                "path": name,
                "label": label,
                "prediction": prediction,
                "confidence": f"{100 * confidence:.1f} %",
                "image": _image_uri(run.mistakes / mistake.image) if mistake else None,
                "map": _image_uri(run.mistakes / mistake.map) if mistake else None,
                "alike": alike.get((run.path, mistake.image), []) if mistake else [],
            }
        )
    return views


def _image_uri(file: Path) -> str | None:
    """Return an image as a data URI of a size for the page, or None where it is missing or damaged."""
    stream = io.BytesIO()
    try:
        with Image.open(file) as image:
            image.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
            image.save(stream, "JPEG", quality=85)
    except OSError:
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _confused(matrix: npt.NDArray[np.int64], names: Sequence[str]) -> list[Views]:
    """List which class is taken for which, the most frequent first."""
    errors = matrix - np.diag(matrix.diagonal())
    order = [position for position in np.argsort(-errors, axis=None, kind="stable") if errors.flat[position]][
        :PAIRS_SHOWN
    ]
    pairs = []
    for position in order:
        true, predicted = divmod(int(position), len(names))
        pairs.append(
            {
                "label": names[true],
                "prediction": names[predicted],
                "count": int(errors[true, predicted]),
                "of": int(matrix[true].sum()),
            }
        )
    return pairs


def _confusion(matrix: npt.NDArray[np.int64], names: Sequence[str]) -> Views:
    if len(names) > NAMED_CLASSES:
        alt = f"Confusion matrix of {len(names)} classes; its numbers are in confusion.csv."
        return {"uri": chart_uri("confusions", lambda: confusion_figure(matrix, names)), "alt": alt}
    positions = range(len(names))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return {
        "rows": [
            {
                "name": name,
                "cells": [
                    (int(matrix[row, column]), f"{shares[row, column]:.2f}", row == column) for column in positions
                ],
            }
            for row, name in enumerate(names)
        ]
    }


def _classes(model: ModelRuns) -> list[Views]:
    """List the classes, the worst first and those without a test image last."""
    found = class_figures(model.labels, model.probabilities.argmax(axis=1), model.class_names, model.groups)
    counts = [count_classes(run) for run in model.part.runs]
    views = []
    for row in sorted(found, key=lambda row: (row["f1"] is None, row["f1"], -row["n"])):
        shown = {name: _estimate(row[name], model.repeated) for name in ("recall", "precision")}
        trained = [item.counts.get(row["class"], 0) for item in counts if item.trained]
        low, high = (pick(trained, default=0) for pick in (min, max))
        views.append(
            {
                "name": row["class"],
                "support": row["n"],
                "f1": _percent(row["f1"]),
                "share": f"{row['f1'] or 0:.3f}",
                "trained": (f"{low}" if low == high else f"{low}–{high}") if trained else "–",
                **shown,
            }
        )
    return views


def _estimate(share: Mapping[str, float] | None, repeated: bool) -> list[str]:
    """Write a share and its interval, which images that were tested several times do not give."""
    if share is None:
        return [_percent(None)]
    value = _percent(share["value"])
    return [value] if repeated else [value, f"({100 * share['low']:.0f}–{100 * share['high']:.0f})"]


def _groups(entry: Mapping[str, Any]) -> list[Views]:
    """List the groups of the test images, the worst first."""
    figures = (entry.get("groups") or {}).get("figures", [])
    return [
        {
            "name": row["group"],
            "n": row["n"],
            "correct": row["correct"],
            "acc": f"{100 * row['acc']['value']:.0f} %",
            "interval": f"{100 * row['acc']['low']:.0f}–{100 * row['acc']['high']:.0f}",
            "share": f"{row['acc']['value']:.3f}",
        }
        for row in figures[:GROUPS_SHOWN]
    ]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _reliability(model: ModelRuns) -> Figure:
    return reliability_figure(model.labels, model.probabilities, model.calibrated, model.independent)


def _reliability_view(model: ModelRuns) -> Views | None:
    if not model.is_finite:
        return None
    labels, probabilities, calibrated = model.labels, model.probabilities, model.calibrated
    confidence, accuracy = probabilities.max(axis=1).mean(), model.right.mean()
    error = expected_calibration_error(labels, probabilities)
    sentences = [
        f"On average its confidence is {100 * confidence:.1f} % and its accuracy {100 * accuracy:.1f} %. Among images "
        f"of like confidence the two differ by {100 * error:.1f} percentage points on average (expected calibration "
        "error)."
    ]
    if calibrated is not None:
        after = expected_calibration_error(labels, calibrated)
        temperatures = ", ".join(f"{item:.2f}" for item in model.temperatures)
        sentences.append(
            f"After temperature scaling, fitted on the validation images ({temperatures}), it is "
            f"{100 * after:.1f} points."
        )
    return {
        "uri": chart_uri("confidence", lambda: _reliability(model)),
        "alt": "Chart of accuracy against confidence, over the number of images of each confidence.",
        "sentences": sentences,
        "bars": model.independent,
    }


def _trust(model: ModelRuns) -> Views | None:
    if not model.is_finite:
        return None
    return trust_view(model) | {"uri": chart_uri("mistakes against coverage", lambda: risk_coverage_figure(model))}


def _localisation(model: ModelRuns) -> list[Views]:
    """List how well the maps of each class lie on it, over all runs, the worst first."""
    rows = [row for run in model.part.runs for row in run.read_localisation() if row["n"] > 0]
    classes = []
    for name in dict.fromkeys(row["class"] for row in rows):
        mine = [row for row in rows if row["class"] == name]
        weights = [row["n"] for row in mine]
        means = {
            score: float(np.average([row[score] for row in mine], weights=weights))
            for score in ("pointing", "iou_mask", "iou_box")
        }
        classes.append({"name": name, "n": int(sum(weights)), **means})
    return sorted(classes, key=lambda row: (row["pointing"], row["iou_mask"]))


def _curves(model: ModelRuns) -> list[Views]:
    courses = [
        Course(run.read_history(), metrics["best_epoch"], metrics["test"])
        for run, metrics in zip(model.part.runs, model.metrics, strict=True)
    ]
    if not all(course.history for course in courses):
        return []
    return [
        {
            "title": title,
            "uri": chart_uri(title, partial(curve_figure, name, courses)),
            "alt": _curves_alt(name, title, courses),
        }
        for name, title in CURVES.items()
    ]


def _curves_alt(name: str, title: str, courses: Sequence[Course]) -> str:
    texts = []
    for course in courses[:3]:
        first, last = course.history[0], course.history[-1]
        parts = [
            f"{label} from {first[f'{part}/{name}']:.3g} to {last[f'{part}/{name}']:.3g}"
            for part, label in (("train", "training"), ("val", "validation"))
            if f"{part}/{name}" in first
        ]
        value = (course.test or {}).get(name, {}).get("value")
        parts += [f"test {value:.3g} at the best epoch, {course.best_epoch}"] if value is not None else []
        texts.append(f"{len(course.history)} epochs: {', '.join(parts)}")
    more = f"; and {len(courses) - 3} more runs" if len(courses) > 3 else ""
    return f"Chart of {title} over the epochs. {'; '.join(texts)}{more}."


def chart_uri(name: str, draw: Callable[[], Figure]) -> str | None:
    """Return a chart for an <img>; None, after a warning, where it cannot be drawn."""
    with attempt(f"the report lacks the chart of {name}"):
        return svg_uri(draw())
    return None
