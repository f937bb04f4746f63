"""The charts of a run: learning curves, confusion matrix and reliability."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from kth_lightning.drawing.figures import save
from kth_lightning.evaluation.calibration import BINS, reliability
from kth_lightning.evaluation.statistics import accuracy_interval

# Okabe and Ito's palette, which colour-blind people tell apart
BLUE, ORANGE = "#0072B2", "#D55E00"
CURVES = {"loss": "cross-entropy (nats)", "acc": "accuracy", "kappa": "Cohen's kappa"}


@dataclass(frozen=True)
class Course:
    """Hold how a run went.

    Attributes:
        history: Rows as `RunFolder.read_history` gives them.
        best_epoch: Numbered as in `history`.
        test: What `summarise` returns, or None before the test.
    """

    history: Sequence[Mapping[str, float]]
    best_epoch: int
    test: Mapping[str, Any] | None


def draw_curves(
    history: Sequence[Mapping[str, float]], best_epoch: int, test: Mapping[str, Any] | None, file: Path
) -> None:
    """Draw loss, accuracy and kappa of training and validation over the epochs, as a PNG.

    A vertical line marks the best epoch; there stands the test figure, with its 95 % interval.

    Args:
        history: Rows as `RunFolder.read_history` gives them.
        best_epoch: Numbered as in `history`.
        test: What `summarise` returns, or None before the test.
        file: Written over; folders above it are made.
    """
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), CURVES, strict=True):
        _curves(axes, name, [Course(history, best_epoch, test)])
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    save(figure, file)


def curve_figure(name: str, courses: Sequence[Course]) -> Figure:
    """Draw one of the figures of training and validation over the epochs, small enough for a phone.

    Args:
        name: "loss", "acc" or "kappa".
        courses: One; or those of several folds or seeds, laid over each other.
    """
    figure = Figure(figsize=(3.6, 3.3), layout="constrained")
    axes = figure.subplots()
    _curves(axes, name, courses)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _curves(axes: Axes, name: str, courses: Sequence[Course]) -> None:
    numbers = [position for course in courses for position in _positions(course.history)]
    numbers += [course.best_epoch for course in courses]
    first, last = min(numbers), max(numbers)
    alone = len(courses) == 1
    shown = []
    for position, course in enumerate(courses):
        epochs = _positions(course.history)
        marker, width = ("o", 1.6) if alone and len(epochs) <= 40 else ("", 1.1)
        for part, label, colour in (("train", "training", BLUE), ("val", "validation", ORANGE)):
            values = [row.get(f"{part}/{name}", math.nan) for row in course.history]
            known = [point for point in zip(epochs, values, strict=True) if math.isfinite(point[1])]
            shown += [value for _, value in known]
            axes.plot(
                [epoch for epoch, _ in known],
                [value for _, value in known],
                color=colour,
                marker=marker,
                markersize=3.5,
                linewidth=width,
                alpha=1 if alone else 0.6,
                label=None if position else label,
            )
        if alone:
            label = f"best epoch: {course.best_epoch}"
            axes.axvline(course.best_epoch, color="0.45", linestyle="--", linewidth=1, label=label, zorder=1.5)
        if course.test and course.test[name]["value"] is not None:
            value, low, high = (course.test[name][key] for key in ("value", "low", "high"))
            shown.append(value)
            axes.errorbar(
                course.best_epoch,
                value,
                None if low is None or not alone else [[max(value - low, 0)], [max(high - value, 0)]],
                fmt="D",
                color="black",
                markersize=5 if alone else 4,
                capsize=3,
                zorder=3,
                label=None if position else "test, 95 % interval" if alone else "test, at the best epoch",
            )
    axes.set_title(CURVES[name], fontsize=11)
    axes.set_xlabel("epoch")
    margin = 0.04 * (last - first) or 0.5
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    finite = [value for value in shown if math.isfinite(value)]
    if name == "loss" and finite and 0 < 20 * min(finite) < max(finite):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if name == "acc":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    plain(axes)


def _positions(history: Sequence[Mapping[str, float]]) -> list[float]:
    """Return where each row stands among the epochs: at its number, or before it for a validation within the epoch."""
    ends = {row["epoch"]: row["step"] for row in history if "step" in row and math.isfinite(row.get("seconds", 0))}
    positions = []
    for row in history:
        epoch, share = row["epoch"], 1.0
        if epoch in ends:
            begun = ends.get(epoch - 1, 0)
            share = (row["step"] - begun) / max(1, ends[epoch] - begun)
        positions.append(epoch - 1 + share)
    return positions


def reliability_figure(
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.floating],
    calibrated: npt.NDArray[np.floating] | None = None,
    independent: bool = True,
) -> Figure:
    """Draw accuracy against confidence, above how many images each confidence has.

    Args:
        labels: Indices of the true classes, shape [N].
        probabilities: Shape [N, C].
        calibrated: The same after the temperature, shape [N, C].
        independent: Draw Wilson's 95 % intervals, which take images for independent trials.
    """
    figure = Figure(figsize=(3.6, 4.1), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color="0.45", linestyle="--", linewidth=1, label="confidence = accuracy")
    edges = np.linspace(0, 1, BINS + 1)
    drawn = [("as trained", BLUE, "o", probabilities)]
    if calibrated is not None:
        drawn.append(("after temperature", ORANGE, "s", calibrated))
    for label, colour, marker, given in drawn:
        counts, right, confidence = reliability(labels, given)
        some = counts > 0
        shares = right[some] / counts[some]
        positions = confidence[some] / counts[some]
        if independent:
            bounds = np.array([accuracy_interval(*item) for item in zip(right[some], counts[some], strict=True)])
            reach = np.abs(bounds.T - shares)
            upper.errorbar(positions, shares, reach, fmt="none", ecolor=colour, elinewidth=1, alpha=0.35, zorder=2)
        upper.scatter(
            positions,
            shares,
            s=14 + 110 * counts[some] / len(labels),
            color=colour,
            marker=marker,
            clip_on=False,
            alpha=0.85,
            zorder=3,
        )
        upper.scatter([], [], s=28, color=colour, marker=marker, label=label)
        lower.stairs(counts, edges, color=colour, fill=calibrated is None, linewidth=1.4)
    upper.set_ylabel("accuracy")
    upper.set_ylim(0, 1)
    lower.set_xlim(0, 1)
    lower.set_xlabel("confidence")
    lower.set_ylabel("images")
    lower.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True, min_n_ticks=1))
    for axis in (upper.yaxis, lower.xaxis):
        axis.set_major_formatter(PercentFormatter(1))
    figure.align_ylabels()
    figure.legend(loc="outside lower center", ncols=1, frameon=False, fontsize=9)
    for axes in (upper, lower):
        plain(axes)
    return figure


def plain(axes: Axes) -> None:
    """Lay a faint grid below the data, and leave out the frame above and on the right."""
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def confusion_figure(matrix: npt.NDArray[np.integer], class_names: Sequence[str]) -> Figure:
    """Draw a confusion matrix: counts in the cells, and the share of the true class as colour.

    Beyond about 90 classes, where no text could be read, the colours stand alone.

    Args:
        matrix: Counts, true classes down and predicted ones across, shape [C, C].
        class_names: C of them, as pictures show them.
    """
    classes = len(class_names)
    named = classes <= 92
    side = max(min(0.36 * classes, 18), 1.8) if named else 8  # inches
    figure = Figure(figsize=(side + 2.4, side + 1.8), layout="compressed")
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap=colormaps["Blues"], vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class", format=PercentFormatter(1), aspect=30, pad=0.03)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("0.6")

    if named:
        points = side / classes * 72
        names = [shortened(name) for name in class_names]
        size = min(9, 0.6 * points)
        axes.set_xticks(range(classes), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
        axes.set_yticks(range(classes), names, fontsize=size)
        edges = np.arange(classes - 1) + 0.5
        axes.hlines(edges, -0.5, classes - 0.5, color="0.88", linewidth=0.5)
        axes.vlines(edges, -0.5, classes - 0.5, color="0.88", linewidth=0.5)
        size = min(9, 0.9 * points / (0.6 * len(str(matrix.max()))))
        for row, column in np.argwhere(matrix):
            colour = "white" if shares[row, column] > 0.55 else "black"
            axes.text(
                column, row, str(matrix[row, column]), ha="center", va="center_baseline", color=colour, fontsize=size
            )
    return figure


def shortened(name: str) -> str:
    """Return a class's name, its middle left out where it is long."""
    return name if len(name) <= 24 else f"{name[:14]}…{name[-9:]}"
