"""The pictures of a run: its learning curves and its confusion matrix."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito's palette, which colour-blind people tell apart


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
    epochs = [row["epoch"] for row in history]
    first, last = min([*epochs, best_epoch]), max([*epochs, best_epoch])
    margin = 0.04 * (last - first) or 0.5
    marker, width = ("o", 1.6) if len(epochs) <= 40 else ("", 1.1)
    panels = {"loss": "cross-entropy (nats)", "acc": "accuracy", "kappa": "Cohen's kappa"}
    for axes, (name, title) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for part, label, colour in (("train", "training", BLUE), ("val", "validation", ORANGE)):
            values = [row.get(f"{part}/{name}", math.nan) for row in history]
            axes.plot(epochs, values, color=colour, marker=marker, markersize=3.5, linewidth=width, label=label)
        axes.axvline(
            best_epoch, color="0.45", linestyle="--", linewidth=1, label=f"best epoch: {best_epoch}", zorder=1.5
        )
        if test and test[name]["value"] is not None:
            value, low, high = (test[name][key] for key in ("value", "low", "high"))
            reach = None if low is None else [[max(value - low, 0)], [max(high - value, 0)]]
            axes.errorbar(
                best_epoch,
                value,
                reach,
                fmt="D",
                color="black",
                markersize=5,
                capsize=3,
                zorder=3,
                label="test, 95 % interval",
            )
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("epoch")
        axes.set_xlim(first - margin, last + margin)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[1].yaxis.set_major_formatter(PercentFormatter(1))
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    save(figure, file)


def confusion_figure(matrix: npt.NDArray[np.integer], class_names: Sequence[str]) -> Figure:
    """Draw a confusion matrix: counts in the cells, and the share of the true class as colour.

    Beyond about 90 classes, where no text could be read, the colours stand alone.

    Args:
        matrix: Counts, true classes down and predicted ones across, shape [C, C].
        class_names: C of them.
    """
    classes = len(class_names)
    cell = min(0.36, 18 / classes)  # inches
    side = max(cell * classes, 1.8)
    figure = Figure(figsize=(side + 2.4, side + 1.8), layout="compressed")
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    picture = axes.imshow(shares, cmap=colormaps["Blues"], vmin=0, vmax=1)
    figure.colorbar(picture, label="share of the true class", format=PercentFormatter(1), aspect=30, pad=0.03)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("0.6")

    points = side / classes * 72
    if points >= 14:
        names = [_shortened(name) for name in class_names]
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


def save(figure: Figure, file: Path) -> None:
    """Write a figure as PNG at 150 dots per inch; folders above the file are made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, format="png", dpi=150, bbox_inches="tight")


def _shortened(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:14]}…{name[-9:]}"
