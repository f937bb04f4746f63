"""The report of a run or of a comparison: one page to look at, which needs no network and no other file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from kth_lightning.data.audit import left_out_sentence
from kth_lightning.data.corrections import counted
from kth_lightning.data.sources.sample import ATTRIBUTION
from kth_lightning.drawing.attempt import attempt
from kth_lightning.drawing.figures import save
from kth_lightning.errors import InputError
from kth_lightning.evaluation.statistics import accuracy_interval
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.suspects_file import PAGE as SUSPECTS
from kth_lightning.report.accuracy_time import Trained, time_figure
from kth_lightning.report.charts import shortened
from kth_lightning.report.differences import find_differences, write_differences
from kth_lightning.report.evaluation_view import evaluation_view
from kth_lightning.report.imbalance import most_uneven
from kth_lightning.report.model_runs import ModelRuns, find_models
from kth_lightning.report.model_view import Views, chart_uri, model_view
from kth_lightning.report.random_split import random_split, random_split_sentences
from kth_lightning.report.recipe_view import environment_rows, settings_rows
from kth_lightning.report.run_figures import draw_run
from kth_lightning.report.same_images import cautions, same_test_images
from kth_lightning.report.seen_part import table_entries
from kth_lightning.report.table import (
    HEADER,
    LOCALISATION_HEADER,
    LOCALISATION_NOTE,
    figures,
    localisation_rows,
    recall_cells,
    table_notes,
    table_rows,
)
from kth_lightning.report.verdict import heading, lead, limits, p_text, sentence, titles_of

_FIGURES = 4  # columns of the table, the others are costs


def write_report(folder: Path) -> Path:
    """Write report.html into a run folder, or into a folder that holds run folders, as `compare` makes it.

    Beside it go the figures of `draw_run` for a run, and figures/accuracy_time.png and differences.csv for a
    comparison. A chart that cannot be drawn costs a warning.

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
        model_view(model, entry, title, f"model-{position}")
        for position, (model, entry, title) in enumerate(zip(models, entries, titles, strict=True), start=1)
    ]
    differences = find_differences(models)
    counted = most_uneven([run for model in models for run in model.part.runs])
    evaluation = evaluation_view(models[0].metrics[0]) if single else None
    kept = _FIGURES if evaluation else None  # nothing was trained that would have cost something
    trained = []
    if same_test_images(entries):  # a chart says nothing of its caution
        trained = [point for model, entry in zip(models, entries, strict=True) for point in _trained(model, entry)]
    header = _accuracy_first(HEADER)[:kept]
    shown = table_entries(entries[0], models[0].metrics[0]) if single else entries
    rows = [_accuracy_first(row)[:kept] for row in table_rows(shown, all_intervals=True)]
    if counted.is_uneven:
        header.insert(1, "macro recall (95 % CI)")
        for row, cell in zip(rows, recall_cells(shown), strict=True):
            row.insert(1, cell)
    page = _templates().get_template("report.html").render(
        name=folder.resolve().name,
        single=single,
        heading=heading(models, entries, titles, counted.is_uneven),
        lead=lead(models, entries, titles, differences, counted),
        evaluation=evaluation,
        uneven=counted.is_uneven,
        header=header,
        rows=rows,
        cautions=cautions(entries),
        notes=table_notes(entries),
        localisation_header=LOCALISATION_HEADER,
        localisation_rows=localisation_rows(entries),
        localisation_note=LOCALISATION_NOTE,
        time=None if single else _time_view(trained),
        left_out=left_out,
        images_left_out=_images_left_out(models),
        corrections=_corrections(models),
        suspects=SUSPECTS if (folder / SUSPECTS).exists() else None,
        differences=[(item, sentence(item, titles)) for item in differences],
        limits=limits(differences),
        random_split=[] if single else random_split_sentences(random_split(folder, entries)),
        grouped=any("groups" in entry for entry in entries),
        models=views,
        settings=settings_rows(models),
        environment=environment_rows(models),
        attribution=ATTRIBUTION if models[0].source == "sample" else None,
    )  # fmt: skip
    file = RunFolder(folder).report
    try:
        if differences:
            write_differences(differences, folder)
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


def _images_left_out(models: Sequence[ModelRuns]) -> list[str]:
    """Say which images of the data the runs do not use, once for all runs on the same data."""
    counts = [metrics["left_out"] for model in models for metrics in model.metrics if metrics.get("left_out")]
    return list(dict.fromkeys(filter(None, map(left_out_sentence, counts))))


def _corrections(models: Sequence[ModelRuns]) -> list[str]:
    """Say how labels were corrected, once for all runs on the same data."""
    counts = [metrics["corrections"] for model in models for metrics in model.metrics if metrics.get("corrections")]
    return list(dict.fromkeys(map(counted, counts)))


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
    uri = chart_uri("accuracy against time", lambda: time_figure(trained)) if trained else None
    if not uri:
        return None
    points = [f"{item.name} {100 * item.acc:.1f} % in {item.seconds:.3g} s" for item in trained]
    alt = f"Chart of test accuracy against training time: {'; '.join(points)}."
    return {"uri": uri, "alt": alt}


def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("kth_lightning.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"shortened": shortened, "p": p_text}
    return templates
