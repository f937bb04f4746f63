"""The chart of a learning curve: accuracy and cross-entropy against images a class."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator, PercentFormatter

from kth_lightning.report.charts import BLUE, ORANGE, plain

_TITLES = {"acc": "accuracy", "loss": "cross-entropy (nats)"}


def curve_figure(outcome: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw both figures at every size, with their 95 % intervals, the fitted curves, and what they tell of more images.

    Args:
        outcome: As `judge_curve` returns it.
        rows: One a training, with "images_a_class", "acc" and "loss".
    """
    figure = Figure(figsize=(9.2, 4.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), _TITLES, strict=True):
        _draw(axes, name, outcome, rows)
    told = max(figure.axes, key=lambda axes: len(axes.get_legend_handles_labels()[1]))
    figure.legend(*told.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _draw(axes: Axes, name: str, outcome: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    sizes, curve = outcome["sizes"], outcome[name]
    images, values = [row["images_a_class"] for row in rows], [row[name] for row in rows]
    axes.scatter(images, values, s=12, color="0.7", label="one fold", zorder=2)
    _points(axes, [(size["images"], size[name]) for size in sizes], BLUE, "o", "all folds, 95 % interval")
    ticks = [size["images"] for size in sizes]
    if curve:
        x, y = (np.array([point[key] for point in curve["curve"]]) for key in ("images", "value"))
        known = x <= sizes[-1]["images"] * 1.001
        axes.plot(x[known], y[known], color=BLUE, linewidth=1.4, label="fitted curve")
        axes.plot(x[~known], y[~known], color=ORANGE, linewidth=1.4, linestyle="--")
        told = [(row["images"], row) for row in curve["predictions"]]
        _points(axes, told, ORANGE, "D", "twice and four times as many")
        ticks += [images for images, _ in told]
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}" if value < 10 else f"{value:.0f}"))
    axes.set_xlabel("training images a class (logarithmic)")
    axes.set_title(_TITLES[name], fontsize=11)
    if name == "acc":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    else:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))  # a curve may span less than a power of ten
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    plain(axes)


def _points(
    axes: Axes, points: Sequence[tuple[float, Mapping[str, float]]], colour: str, marker: str, label: str
) -> None:
    values = np.array([[row["value"], row["low"], row["high"]] for _, row in points])
    reach = np.stack([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]]).clip(min=0)
    axes.errorbar(
        [images for images, _ in points],
        values[:, 0],
        reach,
        fmt=marker,
        color=colour,
        markersize=5.5,
        capsize=3,
        elinewidth=1.3,
        label=label,
        zorder=3,
    )
