"""The chart of a comparison: accuracy against training time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter
from matplotlib.transforms import Bbox

from kth_lightning.drawing.figures import set_plain_text
from kth_lightning.report.charts import BLUE, plain, shortened

TIMES = (0.1, 0.3, 1, 3, 10, 30, 60, 180, 600, 1800, 3600, 10800, 36000, 86400, 259200, 864000)
"""Seconds that an axis of time may name."""


@dataclass(frozen=True)
class Trained:
    """Name a trained model, what it took and what it is worth.

    Attributes:
        name: Stands beside its point.
        seconds: Of training, in all.
        acc: Test accuracy.
        low: Lower end of its 95 % interval, or None.
        high: Upper end, or None.
        reference: Whether it is the article's.
    """

    name: str
    seconds: float
    acc: float
    low: float | None
    high: float | None
    reference: bool = False


def time_figure(models: Sequence[Trained]) -> Figure:
    """Draw test accuracy, with its 95 % interval, against the seconds of training on a logarithmic axis."""
    figure = Figure(figsize=(4.4, 3.6), layout="constrained")
    axes = figure.subplots()
    labels = []
    for model in models:
        low, high = (model.acc if bound is None else bound for bound in (model.low, model.high))
        colour = "0.45" if model.reference else BLUE
        axes.errorbar(
            model.seconds,
            model.acc,
            [[max(model.acc - low, 0)], [max(high - model.acc, 0)]],
            fmt="o",
            color=colour,
            markerfacecolor="white" if model.reference else colour,
            markersize=6,
            elinewidth=1.2,
            capsize=3,
        )
        label = axes.annotate(
            shortened(model.name), (model.seconds, model.acc), (7, 0), textcoords="offset points", va="center",
            fontsize=10, color="0.3" if model.reference else "black", zorder=5,
            path_effects=[withStroke(linewidth=3, foreground="white")],  # where it lies on another model's interval
        )  # fmt: skip
        labels.append(label)
    seconds = [model.seconds for model in models]
    axes.set_xscale("log")
    low, high = max(min(seconds), 0.1) / 2, max(*seconds, 1) * 6
    axes.set_xlim(low, high)
    ticks = [tick for tick in TIMES if low <= tick <= high]
    axes.xaxis.set_major_locator(FixedLocator(ticks[:: max(math.ceil(len(ticks) / 6), 1)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(_duration))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("training time (logarithmic)")
    bounded = any(model.low is not None for model in models)
    axes.set_ylabel("test accuracy, 95 % interval" if bounded else "test accuracy")
    plain(axes)
    _separate(figure, labels)
    return figure


def _separate(figure: Figure, labels: Sequence[Annotation]) -> None:
    set_plain_text(figure)
    figure.draw_without_rendering()  # lays out the axes, which settles where the labels are
    placed: list[Bbox] = []
    for label in sorted(labels, key=lambda label: label.xy[1]):
        own = box = label.get_window_extent()
        for below in placed:
            if box.overlaps(below):
                box = box.translated(0, below.y1 - box.y0 + 1)
        label.xyann = (label.xyann[0], (box.y0 - own.y0) * 72 / figure.dpi)
        placed.append(box)


def _duration(seconds: float, _: int | None = None) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    return f"{seconds / 60:g} min" if seconds < 3600 else f"{seconds / 3600:g} h"
