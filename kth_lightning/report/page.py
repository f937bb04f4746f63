"""The report of a run or of a comparison: one page to look at, which needs no network and no other file."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

from kth_lightning.data.audit import left_out_sentence
from kth_lightning.data.sources.sample import ATTRIBUTION
from kth_lightning.drawing.attempt import attempt
from kth_lightning.drawing.figures import save, svg_uri
from kth_lightning.errors import InputError
from kth_lightning.evaluation.calibration import expected_calibration_error
from kth_lightning.evaluation.statistics import accuracy_interval, confusion_matrix, per_class
from kth_lightning.io.run_folder import RunFolder, write_atomically
from kth_lightning.report.accuracy_time import Trained, time_figure
from kth_lightning.report.charts import (
    CURVES,
    Course,
    confusion_figure,
    curve_figure,
    reliability_figure,
    shortened,
)
from kth_lightning.report.model_runs import ModelRuns, find_models
from kth_lightning.report.run_figures import draw_run
from kth_lightning.report.same_images import cautions, same_test_images
from kth_lightning.report.table import (
    HEADER,
    LOCALISATION_HEADER,
    LOCALISATION_NOTE,
    figures,
    localisation_rows,
    table_notes,
    table_rows,
)
from kth_lightning.report.verdict import capital, heading, lead, paired, score, titles_of

MISTAKES_SHOWN, PAIRS_SHOWN = 12, 10
IMAGE_SIDE = 480
"""Longest side in pixels of a mistake's image."""
NAMED_CLASSES = 100
"""With more classes the confusion matrix is an image without names."""

Views = dict[str, Any]


def write_report(folder: Path) -> Path:
    """Write report.html into a run folder, or into a folder that holds run folders, as `compare` makes it.

    Beside it go the figures of `draw_run` for a run, and figures/accuracy_time.png for a comparison. A chart that
    cannot be drawn costs a warning.

    Args:
        folder: A finished run, or a folder with finished runs as `<model>/`, or below `seed-<s>/` and `fold-<k>/`.

    Returns:
        The page's file.

    Raises:
        InputError: There is no run, none has finished, a file is damaged, or the report cannot be written.
    """
    models, left_out = find_models(folder)
    entries = [figures(model.part, reference=model.source == "kth") for model in models]
    single = models[0].part.runs[0].path == folder
    titles = titles_of(models)
    views = [
        _view(model, entry, title, f"model-{position}")
        for position, (model, entry, title) in enumerate(zip(models, entries, titles, strict=True), start=1)
    ]
    pairs = paired(models, titles)
    trained = []
    if same_test_images(entries):  # a chart says nothing of its caution
        trained = [point for model, entry in zip(models, entries, strict=True) for point in _trained(model, entry)]
    page = _templates().get_template("report.html").render(
        name=folder.resolve().name,
        single=single,
        heading=heading(models, entries, titles),
        lead=lead(models, entries, titles, pairs),
        header=_accuracy_first(HEADER),
        rows=[_accuracy_first(row) for row in table_rows(entries, all_intervals=True)],
        cautions=cautions(entries),
        notes=table_notes(entries),
        localisation_header=LOCALISATION_HEADER,
        localisation_rows=localisation_rows(entries),
        localisation_note=LOCALISATION_NOTE,
        time=None if single else _time_view(trained),
        left_out=left_out,
        images_left_out=_images_left_out(models),
        pairs=pairs,
        repeated=any(model.repeated for model in models) and len(models) > 1,
        models=views,
        settings=_side_by_side([_recipe(model) for model in models]),
        environment=_side_by_side([_environment(model) for model in models]),
        attribution=ATTRIBUTION if models[0].source == "sample" else None,
    )  # fmt: skip
    file = RunFolder(folder).report
    try:
        write_atomically(page, file)
    except OSError as error:
        raise InputError(
            f"the report {file} cannot be written ({error.strerror or error}); make room, or make the folder writable"
        ) from None
    if single:
        draw_run(models[0])
    elif trained:
        chart = RunFolder(folder).figures / "accuracy_time.png"
        with attempt(f"{chart} is not drawn"):
            save(time_figure(trained), chart)
    return file


def _uri(name: str, draw: Callable[[], Figure]) -> str | None:
    """Return a chart for an <img>; None, after a warning, where it cannot be drawn."""
    with attempt(f"the report lacks the chart of {name}"):
        return svg_uri(draw())
    return None


def _images_left_out(models: Sequence[ModelRuns]) -> list[str]:
    """Say which images of the data the runs do not use, once for all runs on the same data."""
    counts = [metrics["left_out"] for model in models for metrics in model.metrics if metrics.get("left_out")]
    return list(dict.fromkeys(filter(None, map(left_out_sentence, counts))))


def _trained(model: ModelRuns, entry: Mapping[str, Any]) -> list[Trained]:
    points = []
    if entry["seconds_total"]["value"] is not None:
        acc = entry["acc"]
        points.append(Trained(model.part.model, entry["seconds_total"]["value"], acc["value"], acc["low"], acc["high"]))
    if article := entry.get("article"):
        low, high = accuracy_interval(round(article["acc"] * article["n"]), article["n"])
        name = f"{model.part.model}, article"
        points.append(Trained(name, article["seconds_total"], article["acc"], low, high, reference=True))
    return points


def _accuracy_first(row: Sequence[str]) -> list[str]:
    """Order a row's cells such that a phone shows what counts without scrolling."""
    model, seconds, loss, accuracy, kappa, *costs = row
    return [model, accuracy, kappa, loss, seconds, *costs]


def _time_view(trained: Sequence[Trained]) -> Views | None:
    uri = _uri("accuracy against time", lambda: time_figure(trained)) if trained else None
    if not uri:
        return None
    points = [f"{item.name} {100 * item.acc:.1f} % in {item.seconds:.3g} s" for item in trained]
    alt = f"Chart of test accuracy against training time: {'; '.join(points)}."
    return {"uri": uri, "alt": alt}


def _view(model: ModelRuns, entry: Mapping[str, Any], title: str, name: str) -> Views:
    """Gather what the page says of one model."""
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
        "reliability": _reliability_view(model),
        "localisation": _localisation(model),
        "curves": _curves(model),
    }


def _mistakes(model: ModelRuns) -> list[Views]:
    """List the most confident wrong predictions, with their images where the run has them."""
    names, wrong = model.class_names, []
    for run, predictions in zip(model.part.runs, model.predictions, strict=True):
        named = predictions.probabilities.argmax(axis=1)
        for row in np.flatnonzero(named != predictions.labels):
            confidence = float(predictions.probabilities[row, named[row]])
            wrong.append((confidence, run, predictions.paths[row], names[predictions.labels[row]], names[named[row]]))
    wrong = sorted(wrong, key=lambda item: -item[0])[:MISTAKES_SHOWN]
    kept = {(run.path, mistake.path): mistake for run in model.part.runs for mistake in run.read_mistakes()}
    views = []
    for confidence, run, path, label, prediction in wrong:
        mistake = kept.get((run.path, path))
        views.append(
            {
                "path": path,
                "label": label,
                "prediction": prediction,
                "confidence": f"{100 * confidence:.1f} %",
                "image": _image_uri(run.mistakes / mistake.image) if mistake else None,
                "map": _image_uri(run.mistakes / mistake.map) if mistake else None,
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
        return {"uri": _uri("confusions", lambda: confusion_figure(matrix, names)), "alt": alt}
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
    scores = per_class(model.labels, model.probabilities)
    given = np.bincount(model.probabilities.argmax(axis=1), minlength=len(model.class_names))
    order = np.lexsort((-scores.support, scores.f1, scores.support == 0))
    return [
        {
            "name": model.class_names[position],
            "support": int(scores.support[position]),
            "precision": _percent(scores.precision[position] if given[position] else None),
            "recall": _percent(scores.recall[position] if scores.support[position] else None),
            "f1": _percent(scores.f1[position] if scores.support[position] else None),
            "share": f"{scores.f1[position]:.3f}",
        }
        for position in order
    ]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _reliability(model: ModelRuns) -> Figure:
    return reliability_figure(model.labels, model.probabilities, model.calibrated)


def _reliability_view(model: ModelRuns) -> Views | None:
    if not model.is_finite:
        return None
    labels, probabilities, calibrated = model.labels, model.probabilities, model.calibrated
    confidence, accuracy = probabilities.max(axis=1).mean(), model.right.mean()
    error = expected_calibration_error(labels, probabilities)
    sentences = [
        f"On average its confidence is {100 * confidence:.1f} % and its accuracy {100 * accuracy:.1f} %. They differ "
        f"by {100 * error:.1f} percentage points (expected calibration error)."
    ]
    if calibrated is not None:
        after = expected_calibration_error(labels, calibrated)
        temperatures = ", ".join(f"{item:.2f}" for item in model.temperatures)
        sentences.append(
            f"After temperature scaling, fitted on the validation images ({temperatures}), it is "
            f"{100 * after:.1f} points."
        )
    return {
        "uri": _uri("confidence", lambda: _reliability(model)),
        "alt": "Chart of accuracy against confidence, over the number of images of each confidence.",
        "sentences": sentences,
    }


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
            "uri": _uri(title, partial(curve_figure, name, courses)),
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


def _recipe(model: ModelRuns) -> dict[str, str]:
    """Give the settings that decide a result, under the names of their flags."""
    idle = {"model.init_args.weights_sha256", "data.cache_dir", "data.augmentation_seed"}
    config = model.configs[0]
    idle |= set() if config.get("data.num_folds") else {"data.fold"}
    idle |= {"data.sample_size"} if model.source != "sample" else set()
    kept = {}
    for key in config:
        chosen = key.startswith(("model.", "data.")) or key in (
            "seed_everything",
            "trainer.max_epochs",
            "monitor",
            "patience",
            "ema_decay",
        )
        values = dict.fromkeys(str(item[key]) for item in model.configs if item.get(key) not in (None, "", [], {}))
        if chosen and values and key not in idle:
            name = "model" if key == "model.class_path" else key.replace("model.init_args.", "model.")
            kept[name] = ", ".join(value.removeprefix("kth_lightning.models.") for value in values)
    return kept


def _environment(model: ModelRuns) -> dict[str, str]:
    values_of: dict[str, dict[str, None]] = {}
    for metrics, config in zip(model.metrics, model.configs, strict=True):
        hashes = metrics.get("hashes") or {}
        for name, value in {
            "device": metrics.get("device"),
            "precision": metrics.get("precision"),
            "parameters": f"{metrics['parameters']:,}" if metrics.get("parameters") else None,
            "program": config["program"],
            **(metrics.get("versions") or {}),
            **{f"{name}, sha256": str(value)[:12] for name, value in hashes.items() if value},
        }.items():
            if value is not None:
                values_of.setdefault(name, {})[str(value)] = None
    return {name: ", ".join(values) for name, values in values_of.items()}


def _side_by_side(columns: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name, "–") for column in columns]) for name in names]


def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("kth_lightning.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["shortened"] = shortened
    return templates
