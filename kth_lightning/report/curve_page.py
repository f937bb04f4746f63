"""The page of a learning curve, and the tables and the picture beside it."""

import statistics
from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from kth_lightning.drawing.attempt import attempt
from kth_lightning.drawing.figures import save
from kth_lightning.evaluation.learning_curve import judge_curve
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.csv_text import csv_text
from kth_lightning.io.curve_folder import CurveFolder
from kth_lightning.report.charts import shortened
from kth_lightning.report.curve_chart import curve_figure
from kth_lightning.report.curve_runs import CurveRuns, read_curve
from kth_lightning.report.curve_sentences import (
    bounded,
    check_sentence,
    class_sentence,
    percent,
    prediction_sentences,
)
from kth_lightning.report.model_view import chart_uri


def write_curve(folder: CurveFolder) -> dict[str, Any]:
    """Judge a learning curve; write learning_curve.csv and .json, per_class.csv, the picture and report.html.

    Args:
        folder: All of whose trainings have ended.

    Returns:
        What `judge_curve` returns.

    Raises:
        InputError: A training has not ended, or a file is damaged.
    """
    runs = read_curve(folder)
    outcome = judge_curve(runs.scores)
    names = list(runs.rows[0])
    write_atomically(csv_text([names, *([_cell(row[name]) for name in names] for row in runs.rows)]), folder.table)
    write_atomically(csv_text(_class_rows(runs)), folder.classes)
    folder.write_outcome(outcome)
    with attempt(f"{folder.figure} is not drawn"):
        save(curve_figure(outcome, runs.rows), folder.figure)
    write_atomically(_page(folder, outcome, runs), folder.report)
    return outcome


def _cell(value: float) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


def _class_rows(runs: CurveRuns) -> list[list[object]]:
    """Return the recall of every class at every size, over all folds."""
    scores, folds = runs.scores, len({row["fold"] for row in runs.rows})
    rows: list[list[object]] = [["class", "size", "train_images", "test_images", "recall"]]
    for place, name in enumerate(scores.class_names):
        mine = scores.labels == place
        for size, counted in enumerate(runs.class_images):
            recall = 1 - scores.wrong[size, mine].mean()
            rows.append([name, size + 1, _cell(counted[name] / folds), int(mine.sum()), _cell(float(recall))])
    return rows


def _page(folder: CurveFolder, outcome: dict[str, Any], runs: CurveRuns) -> str:
    environment = Environment(
        loader=PackageLoader("kth_lightning.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shortened": shortened, "percent": percent, "bounded": bounded}
    sizes = range(1, len(outcome["sizes"]) + 1)
    recalls = [statistics.fmean(row["recall"] for row in runs.rows if row["size"] == size) for size in sizes]
    return environment.get_template("learning_curve.html").render(
        name=folder.path.resolve().name,
        outcome=outcome,
        recalls=recalls,
        sentences=prediction_sentences(outcome),
        checks=[said for name in ("acc", "loss") if (said := check_sentence(outcome, name))],
        of_classes=class_sentence(outcome),
        chart=chart_uri("the learning curve", partial(curve_figure, outcome, runs.rows)),
    )
