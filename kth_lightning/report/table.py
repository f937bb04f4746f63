"""The table that sets models side by side, as Markdown and as JSON."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tabulate

from kth_lightning.errors import InputError
from kth_lightning.evaluation.class_figures import class_figures
from kth_lightning.evaluation.clusters import cluster_numbers, summarise_clusters, summarise_groups
from kth_lightning.evaluation.statistics import accuracy_interval
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.run_folder import LOCALISATION, RunFolder
from kth_lightning.report.registry import ARTICLE_IMAGES, MODELS
from kth_lightning.report.same_images import cautions, image_names, inputs
from kth_lightning.report.spread import folds_and_seeds, mean_and_sd

tabulate.MIN_PADDING = 0  # its two spaces beside every heading would take the table beyond 120 columns

SCORES = ("loss", "acc", "kappa", "recall")
COSTS = ("seconds_per_epoch", "best_epoch", "epochs", "parameters_trained", "seconds_total")
HEADER = ["model", "s/epoch", "cross-entropy", "accuracy (95 % CI)", "kappa"]
HEADER += ["best epoch", "epochs", "params trained", "total"]
_COLUMNS = {"loss": HEADER.index("cross-entropy"), "kappa": HEADER.index("kappa")}

ARTICLE_NOTE = (
    f"article: of 2017, tested on {ARTICLE_IMAGES} images; its seconds include a pass over validation AND test "
    "after each epoch,\non a GPU of 2017; ours: training + validation."
)
LOCALISATION_HEADER = ["activation maps", "images", "pointing game (95 % CI)", "IoU with masks", "IoU of boxes"]
LOCALISATION_NOTE = (
    "activation maps: share whose highest value lies on the object (pointing game), and overlap of their high part;\n"
    "(whole image): the same for a uniform map."
)
RUNS_NOTE = (
    "± sd (n): standard deviation over n runs, under the figure of all their predictions together, or their mean cost"
)
BOTH_NOTE = (
    "± folds (n): standard deviation over n folds, of each one's mean over the seeds; ± seeds (n): over n seeds,\n"
    "of each one's mean over the folds; both under the figure of all predictions together, or the mean cost"
)
INTERVAL_NOTE = ";\nthe interval is for further images, from all these runs' predictions together"


@dataclass(frozen=True)
class Part:
    """Name a model of the comparison and its finished runs.

    Attributes:
        model: Name of its recipe; of one in the registry the article has figures.
        runs: One; or several, over folds or seeds.
    """

    model: str
    runs: Sequence[RunFolder]


def table(parts: Sequence[Part], reference: bool) -> str:
    """Return the comparison as GitHub Markdown, at most 120 columns wide.

    Args:
        parts: One a model, in the order of the rows.
        reference: Put the article's figures below ours.

    Raises:
        InputError: A run has no figures, or damaged ones.
    """
    return _markdown([figures(part, reference) for part in parts])


def write_table(parts: Sequence[Part], folder: Path, reference: bool) -> str:
    """Write table.md and table.json into a folder and return the Markdown.

    The JSON is a list with an entry a model: "model", "runs", "n" (different test images of all runs), for each
    score "value", "sd", "low" and "high", for each cost "value" and "sd", and so for "loss_calibrated", the
    cross-entropy after temperature scaling; "classes", where no image is tested twice, are the figures of each class,
    as `class_figures` gives them; "inputs", a run each, tells its images ("data", "test") and what it started from
    ("leakage"); "folds" and "seeds" count the different test sets and the trainings on each; with `reference` also
    "article", and where images have masks "localisation". Over several runs a score's "value" and bounds are those of
    the pooled predictions, for further images: an image that is tested several times (seeds) counts as one. A cost's
    "value" is the mean. "sd" is the standard deviation over the runs.
    Where there are folds and seeds, "sd_folds" is the standard deviation over the folds, of each fold's mean over the
    seeds, and "sd_seeds" that over the seeds, of each seed's mean over the folds.

    Args:
        parts: One a model, in the order of the rows.
        folder: Made where it is missing.
        reference: Put the article's figures below ours.

    Raises:
        InputError: A run has no figures, or damaged ones.
    """
    entries = [figures(part, reference) for part in parts]
    markdown = _markdown(entries)
    write_atomically(markdown + "\n", folder / "table.md")
    write_atomically(json.dumps(entries, indent=2, allow_nan=False) + "\n", folder / "table.json")
    return markdown


def figures(part: Part, reference: bool) -> dict[str, Any]:
    """Return a model's entry of table.json, as `write_table` describes it.

    Raises:
        InputError: A run has no figures, or damaged ones.
    """
    metrics = [_checked(run) for run in part.runs]
    test = metrics[0]["test"] if len(metrics) == 1 else _pooled(part.runs)
    entry: dict[str, Any] = {"model": part.model, "runs": len(metrics), "n": test.get("n", metrics[0]["test"]["n"])}
    entry |= {name: test[name] for name in ("groups", "classes") if test.get(name)}
    values = {name: [run["test"][name]["value"] for run in metrics] for name in SCORES}
    values |= {name: [run[name] for run in metrics] for name in COSTS}
    entry["inputs"] = [inputs(run, item) for run, item in zip(part.runs, metrics, strict=True)]
    tests = [item["test"] for item in entry["inputs"]]
    counts, spread = folds_and_seeds(tests, [run.get("seed") for run in metrics], values)
    entry |= counts
    for name, own in values.items():
        entry[name] = mean_and_sd(own) | spread.get(name, {})
        if name in SCORES:
            entry[name] |= {key: test[name][key] for key in ("value", "low", "high")}
    entry["loss_calibrated"] = mean_and_sd([run["test"].get("loss_calibrated") for run in metrics])
    if localisations := [run["test"]["localisation"] for run in metrics if run["test"].get("localisation")]:
        bounds = localisations[0] if len(metrics) == 1 else {}
        tested = sum(run["test"]["n"] for run in metrics)
        entry["localisation"] = {"n": round(sum(item["n"] for item in localisations) * entry["n"] / tested)} | {
            name: mean_and_sd([item[name]["value"] for item in localisations])
            | {end: bounds.get(name, {}).get(end) for end in ("low", "high")}
            for name in LOCALISATION
            if name != "n"
        }
        entry["localisation"]["whole_picture"] = {
            name: mean_and_sd([item.get("whole_picture", {}).get(name) for item in localisations])["value"]
            for name in LOCALISATION
            if name != "n"
        }
    if reference and part.model in MODELS:
        entry["article"] = MODELS[part.model].article | {"n": ARTICLE_IMAGES}
    return entry


def _checked(run: RunFolder) -> dict[str, Any]:
    metrics = run.read_metrics()
    lacking = [name for name in ("test", *COSTS) if name not in metrics]
    lacking += [f"test/{name}" for name in ("n", *SCORES) if name not in (metrics.get("test") or {})]
    if lacking:
        raise InputError(f"{run.metrics} has no {', '.join(lacking)}; delete it and start its run again")
    return metrics


def _pooled(runs: Sequence[RunFolder]) -> dict[str, Any]:
    predictions = [run.read_predictions() for run in runs]
    names = [name for run, item in zip(runs, predictions, strict=True) for name in image_names(run, item)]
    for run, item in zip(runs, predictions, strict=True):
        if item.class_names != predictions[0].class_names:
            raise InputError(
                f"{run.predictions} has other classes than {runs[0].predictions}; compare runs on one data set"
            )
    labels = np.concatenate([item.labels for item in predictions])
    probabilities = np.concatenate([item.probabilities for item in predictions])
    groups = [group for item in predictions for group in item.groups]
    if len(set(names)) < len(names):  # seeds: what they make of one image are no trials of their own
        clusters = cluster_numbers([group or name for group, name in zip(groups, names, strict=True)])
        assert clusters is not None
        number = len(set(names))
        return summarise_clusters(labels, probabilities, clusters, len(names) / number) | {"n": number}
    classes = class_figures(labels, probabilities.argmax(axis=1), predictions[0].class_names, groups)
    return summarise_groups(labels, probabilities, groups) | {"classes": classes}


def _markdown(entries: Sequence[dict[str, Any]]) -> str:
    alignment = ["left"] + ["right"] * (len(HEADER) - 1)
    text = tabulate.tabulate(table_rows(entries), HEADER, "github", disable_numparse=True, colalign=alignment)
    wrapped = [textwrap.fill(item, 120, break_long_words=False, break_on_hyphens=False) for item in cautions(entries)]
    parts = [*wrapped, text, *table_notes(entries)]
    if rows := localisation_rows(entries):
        alignment = ["left"] + ["right"] * (len(LOCALISATION_HEADER) - 1)
        table = tabulate.tabulate(rows, LOCALISATION_HEADER, "github", disable_numparse=True, colalign=alignment)
        parts += [table, LOCALISATION_NOTE]
    return "\n\n".join(parts)


def table_rows(entries: Sequence[dict[str, Any]], all_intervals: bool = False) -> list[list[str]]:
    """Return the table's rows as text, under `HEADER`: each model's, its spread over runs, and the article's.

    Args:
        entries: As `figures` makes them.
        all_intervals: Write the intervals of cross-entropy and kappa too, which a terminal has no room for.
    """
    rows = []
    for entry in entries:
        value, low, high = (entry["acc"][key] for key in ("value", "low", "high"))
        interval = "" if low is None else _interval(low, high)
        row = _row(entry["model"], _column(entry, "value"), f"{100 * value:.1f} %{interval}")
        for name, form in (("loss", ".2g"), ("kappa", ".2f")):
            if all_intervals and entry[name]["low"] is not None:
                row[_COLUMNS[name]] += f" ({entry[name]['low']:{form}}–{entry[name]['high']:{form}})"
        rows.append(row)
        for title, key in _spreads(entry):
            deviations = _column(entry, key) | {"parameters_trained": None}
            rows.append(_row(title, deviations, f"{100 * entry['acc'][key]:.1f} %"))
        if article := entry.get("article"):
            interval = _interval(*accuracy_interval(round(article["acc"] * article["n"]), article["n"]))
            rows.append(_row("(article)", article, f"{100 * article['acc']:.0f} %{interval}"))
    return rows


def recall_cells(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Return a column of macro recalls for the rows of `table_rows`."""
    cells = []
    for entry in entries:
        value, low, high = (entry["recall"][key] for key in ("value", "low", "high"))
        cells.append(f"{100 * value:.1f} %{'' if low is None else _interval(low, high)}")
        cells += [f"{100 * entry['recall'][key]:.1f} %" for _, key in _spreads(entry)]
        cells += ["–"] if "article" in entry else []
    return cells


def _spreads(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name the rows of standard deviations under a model's mean, and where they stand."""
    if "sd_folds" in entry["acc"]:
        return [(f"± folds ({entry['folds']})", "sd_folds"), (f"± seeds ({entry['seeds']})", "sd_seeds")]
    return [(f"± sd ({entry['runs']})", "sd")] if entry["runs"] > 1 else []


def localisation_rows(entries: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the rows under `LOCALISATION_HEADER`: the models whose test images have masks, and a yardstick."""
    rows: list[list[str]] = []
    whole: dict[str, float | None] = {}
    for entry in entries:
        if localisation := entry.get("localisation"):
            pointing = localisation["pointing"]
            interval = "" if pointing["low"] is None else _interval(pointing["low"], pointing["high"])
            share = "–" if pointing["value"] is None else f"{100 * pointing['value']:.1f} %{interval}"
            overlaps = [_number(localisation[name]["value"], ".3f") for name in ("iou_mask", "iou_box")]
            rows.append([entry["model"], str(localisation["n"]), share, *overlaps])
            whole = whole or localisation["whole_picture"]
    if whole and whole["pointing"] is not None:
        overlaps = [_number(whole[name], ".3f") for name in ("iou_mask", "iou_box")]
        rows.append(["(whole image)", rows[0][1], f"{100 * whole['pointing']:.1f} %", *overlaps])
    return rows


def table_notes(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Return what must be said under the table."""
    notes = []
    if several := [entry for entry in entries if entry["runs"] > 1]:
        pooled = any(entry["acc"]["low"] is not None for entry in several)
        apart = any("sd_folds" in entry["acc"] for entry in several)
        notes.append((BOTH_NOTE if apart else RUNS_NOTE) + (INTERVAL_NOTE if pooled else "") + ".")
    scaled = [(entry["model"], entry["loss_calibrated"]["value"]) for entry in entries]
    if known := [f"{model} {value:.3g}" for model, value in scaled if value is not None]:
        notes.append(f"cross-entropy after temperature scaling, fitted on validation: {', '.join(known)}")
    if any("article" in entry for entry in entries):
        notes.append(ARTICLE_NOTE)
    return notes


def _column(entry: dict[str, Any], key: str) -> dict[str, float | None]:
    return {name: entry[name][key] for name in (*SCORES, *COSTS)}


def _row(title: str, figures: Mapping[str, float | None], accuracy: str) -> list[str]:
    return [
        title,
        _number(figures["seconds_per_epoch"], ".3g"),
        _number(figures["loss"], ".3g"),
        accuracy,
        _number(figures["kappa"], ".4f"),
        _number(figures["best_epoch"], ".0f"),
        _number(figures["epochs"], ".0f"),
        _number(figures["parameters_trained"], ",.0f"),
        _duration(figures["seconds_total"]),
    ]


def _interval(low: float, high: float) -> str:
    return f" ({100 * low:.1f}–{100 * high:.1f})"


def _number(value: float | None, form: str) -> str:
    if value is None:
        return "–"
    return f"{value:{form}}" if value < 1000 or form != ".3g" else f"{value:.0f}"


def _duration(seconds: float | None) -> str:
    if seconds is None or seconds < 1000:
        return "–" if seconds is None else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 60_000 else f"{seconds / 3600:.1f} h"
