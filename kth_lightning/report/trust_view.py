"""What the report says of a model's doubt: how many images it decides, and how many classes a set needs."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from kth_lightning.evaluation.shares import Tally, share
from kth_lightning.evaluation.statistics import Estimate
from kth_lightning.evaluation.trust import verdict
from kth_lightning.report.charts import BLUE, ORANGE, plain
from kth_lightning.report.model_runs import ModelRuns
from kth_lightning.report.seen_part import seen_note

_VERDICTS = {"kept": "as promised", "exceeded": "more", "missed": "less", "open": "cannot be told"}


def risk_coverage_figure(model: ModelRuns) -> Figure:
    """Draw the share of mistakes among the most confident predictions, against how many these are."""
    curve = model.risk_coverage
    figure = Figure(figsize=(3.6, 3.3), layout="constrained")
    axes = figure.subplots()
    # The places of the first few images say nothing: one mistake among three is a third.
    axes.step(curve.coverage, curve.risk, where="post", color=BLUE, linewidth=1.6, label="wrong of those given")
    wrong = 1 - model.right.mean()
    axes.axhline(wrong, color="0.45", linestyle="--", linewidth=1, label="wrong of all")
    # The wishes are measured on unseen images, which an evaluation's curve may not be of alone.
    marked = [row for row in _decided(model) if 0 < row["kept"] < row["n"] and row["n"] == len(model.right)]
    for number, row in enumerate(marked):
        x, y = row["kept"] / row["n"], 1 - row["right"] / row["kept"]
        axes.plot(x, y, "D", color=ORANGE, markersize=5, clip_on=False, zorder=3)
        # One above the other, for the places of several wishes may be close together.
        place = (0, 7 + 11 * number)
        axes.annotate(
            f"{100 * row['wanted']:g} %", (x, y), xytext=place, textcoords="offset points", ha="center", fontsize=8
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, max(1.5 * wrong, 0.02))
    axes.set_xlabel("predictions given, the most confident first")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=None))
    plain(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def trust_view(model: ModelRuns) -> dict[str, Any]:
    """Gather what the page says of a model whose probabilities are numbers."""
    sets = [_set_row(row, _bare(model)) for row in _sets(model)]
    return {
        "alt": "Chart of the share of mistakes against the share of images whose prediction is given.",
        "area": _share(model.risk_coverage.area, model.repeated, 2),
        "lead": _lead(model),
        "decided": [_decided_row(row, _bare(model)) for row in _decided(model)],
        "sets": sets,
        "open": any(_VERDICTS["open"] in row for row in sets),
        "of": _images(model),
        "validation": sorted({trust["validation_images"] for trust in _measured(model)}),
    }


def _measured(model: ModelRuns) -> list[dict[str, Any]]:
    """Return what each run's metrics.json has of thresholds and sets; nothing where one has none."""
    found = [metrics.get("trust") for metrics in model.metrics]
    return [item for item in found if item] if all(found) else []


def _bare(model: ModelRuns) -> bool:
    """Tell whether shares have no interval: images count several times, or their groups were not counted (0.4.0)."""
    rows = [row for trust in _measured(model) for row in trust["min_accuracy"]]
    return model.repeated or (any(model.groups) and not all(row.get("groups") for row in rows))


def _groups(rows: Sequence[dict[str, Any]]) -> Tally | None:
    """Put the runs' counts of groups together: no group is tested in two folds."""
    found: list[Tally] = [row["groups"] for row in rows if row.get("groups")]
    return [counts for groups in found for counts in groups] if len(found) == len(rows) else None


def _decided(model: ModelRuns) -> list[dict[str, Any]]:
    """Add up over the runs what thresholds decided, a row for each accuracy that was wanted."""
    rows = zip(*(trust["min_accuracy"] for trust in _measured(model)), strict=True)
    return [
        {"wanted": row[0]["wanted"], "needs": row[0]["needs"]}
        | {"without": sum(item["threshold"] is None for item in row), "runs": len(row)}
        | {name: sum(item[name] for item in row) for name in ("n", "kept", "right")}
        | {"groups": _groups(row)}
        for row in rows
    ]


def _sets(model: ModelRuns) -> list[dict[str, Any]]:
    """Add up over the runs what prediction sets covered, a row for each promise that all runs could make."""
    rows = []
    for row in zip(*(trust["sets"] for trust in _measured(model)), strict=True):
        total = sum(item["n"] for item in row)
        common = {"promised": row[0]["promised"], "needs": row[0]["needs"], "n": total}
        if any(item["hits"] is None for item in row):
            rows.append(common | {"hits": None})
            continue
        means = {name: sum(item[name] * item["n"] for item in row) / total for name in ("size", "single")}
        rows.append(common | {"hits": sum(item["hits"] for item in row), "groups": _groups(row)} | means)
    return rows


def _lead(model: ModelRuns) -> str | None:
    """Say in a sentence how many images the model decides at the first accuracy that asks for some doubt."""
    rows = [row for row in _decided(model) if row["kept"]]
    if not rows:
        return None
    row = next((row for row in rows if row["kept"] < row["n"]), rows[-1])
    decided, right = _shares(row)
    if row["kept"] == row["n"]:
        return (
            f"Asked for {100 * row['wanted']:g} % accuracy, it decides all {_kind(model)}images; "
            f"{_share(right, _bare(model))} of them are right."
        )
    return (
        f"Asked for {100 * row['wanted']:g} % accuracy, it decides {_share(decided, _bare(model))} of the "
        f"{_kind(model)}images and leaves the others to you; of those that it decides, {_share(right, _bare(model))} "
        "are right."
    )


def _kind(model: ModelRuns) -> str:
    return "unseen " if seen_note(model.metrics[0]) else "test "


def _images(model: ModelRuns) -> str:
    """Say of which images the tables are, and how many these are."""
    number = sum(trust["sets"][0]["n"] for trust in _measured(model))
    if model.repeated:
        return f"{number} tests of {len(set(model.names))} test images"
    if number == 1:
        return f"one {_kind(model)}image"
    return f"the {number} {_kind(model)}images"


def _shares(row: dict[str, Any]) -> tuple[Estimate, Estimate]:
    """Return the shares of images that are decided, and of these that are right."""
    kept, groups = row["kept"], row["groups"]
    return share(kept, row["n"], groups), share(row["right"], kept, groups, (2, 1))


def _decided_row(row: dict[str, Any], bare: bool) -> list[str]:
    first = [f"{100 * row['wanted']:g} %", str(row["needs"])]
    if row["without"] == row["runs"]:
        return [*first, "not shown", "–"]
    lacking = f", {row['without']} of {row['runs']} runs none" if row["without"] else ""
    decided, right = (_share(item, bare) for item in _shares(row))
    return [*first, decided + lacking, right]


def _set_row(row: dict[str, Any], bare: bool) -> list[str]:
    promised = f"{100 * row['promised']:g} %"
    if row["hits"] is None:
        return [promised, str(row["needs"]), "not shown", "–", "–", "–"]
    measured = _share(share(row["hits"], row["n"], row["groups"]), bare)
    said = "–" if bare else _VERDICTS[verdict(row["hits"], row["n"], row["groups"], row["promised"])]
    return [promised, str(row["needs"]), measured, said, f"{row['size']:.2f}", f"{100 * row['single']:.0f} %"]


def _share(estimate: Any, bare: bool, digits: int = 1) -> str:
    """Write a share in percent, with its interval unless it is bare."""
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    if value is None:
        return "–"
    text = f"{100 * value:.{digits}f} %"
    return text if bare or low is None else f"{text} ({100 * low:.{digits}f}–{100 * high:.{digits}f})"
