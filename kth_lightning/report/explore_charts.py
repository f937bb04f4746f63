"""The charts of `explore`, and photographs laid out as one image."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from numpy.typing import NDArray
from PIL import Image

from kth_lightning.data.catalogue import ImageRecord
from kth_lightning.drawing.captions import fitted, write_text
from kth_lightning.drawing.figures import save
from kth_lightning.drawing.fonts import families
from kth_lightning.drawing.names import isolated
from kth_lightning.report.charts import BLUE, ORANGE, shortened
from kth_lightning.report.photos import Row

_CHANNELS = (("red", "#cc2936", "-"), ("green", "#00875a", "--"), ("blue", "#1f5fd0", "-."))
_GREEN = "#009E73"
_NAMED_BARS = 80
_GAP = 10  # pixels, of a sheet
_TEXT = 15


def draw_colours(densities: NDArray[np.float64], class_names: Sequence[str], columns: int, file: Path) -> None:
    """Draw a grid of panels, one a class, with the densities of red, green and blue.

    Args:
        densities: Of shape [K, 3, 256].
        class_names: K of them, as pictures show them.
        columns: Panels in a row, at most.
        file: A PNG, written over.
    """
    columns = min(columns, len(class_names))
    rows = math.ceil(len(class_names) / columns)
    width = 2.1 * columns if columns > 3 else 4.2 if columns < 3 else 8.4
    figure = Figure(figsize=(width, 1.4 * rows + 0.7))
    figure.set_layout_engine("constrained", h_pad=0.09)  # inches, so that a title is not read with the panel above it
    # One flat background can pile up at one level; the other classes should stay readable beside it.
    peaks = densities.max(axis=(1, 2))
    top = 1.04 * min(float(peaks.max()), 2.5 * float(np.median(peaks)))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()  # sharing axes takes seconds for sixty panels
    for position, (axes, curves, name) in enumerate(zip(grid, densities, class_names, strict=False)):
        for values, (channel, colour, style) in zip(curves, _CHANNELS, strict=True):
            axes.plot(values, color=colour, linestyle=style, linewidth=1.2, label=channel)
            axes.fill_between(range(256), values, color=colour, alpha=0.1, linewidth=0)
        axes.set_title(shortened(name), fontsize=10, pad=3)
        axes.set(xlim=(0, 255), ylim=(0, top), xticks=[0, 128, 255], yticks=[])
        axes.tick_params(labelsize=8, labelbottom=position >= len(class_names) - columns)
        axes.spines[["top", "right", "left"]].set_visible(False)
    for axes in grid[len(class_names) :]:
        axes.set_axis_off()
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    figure.supxlabel("level, 0 to 255", fontsize=9)
    save(figure, file)


def draw_counts(counts: Mapping[str, Counter[str]], class_names: Mapping[str, str], file: Path) -> None:
    """Draw the images per class as bars, sorted by their training count; without names where classes are too many.

    Args:
        counts: For each part of the split the images of each class; without a split there is one part, "all".
        class_names: As pictures show them, for each class, sorted as the bars should be.
        file: A PNG, written over.
    """
    parts = [part for part in ("train", "val", "test", "all") if part in counts]
    names = {"train": "training", "val": "validation", "test": "test", "all": "all images"}
    colours = {"train": BLUE, "val": ORANGE, "test": _GREEN, "all": BLUE}
    named = len(class_names) <= _NAMED_BARS
    height = 0.235 * len(class_names) + 1.0 if named else 4.0
    figure = Figure(figsize=(4.5, height), layout="constrained")
    axes = figure.subplots()
    start = np.zeros(len(class_names))
    at = np.arange(len(class_names))
    for part in parts:
        values = np.array([counts[part][name] for name in class_names], dtype=float)
        if named:
            axes.barh(at, values, left=start, color=colours[part], label=names[part], height=0.78)
        else:
            axes.bar(at, values, bottom=start, color=colours[part], label=names[part], width=1.0)
        start += values
    if named:
        first = [counts[parts[0]][name] for name in class_names]
        axes.set_yticks(at, [shortened(name) for name in class_names.values()], fontsize=9)
        axes.set_ylim(len(class_names) - 0.5, -0.5)
        axes.set_xlabel("images")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        for position, count in zip(at, first, strict=True):
            inside = count > 0.12 * start.max()
            axes.annotate(
                str(count),
                (count, position),
                xytext=(-3 if inside else 3, 0),
                textcoords="offset points",
                ha="right" if inside else "left",
                va="center_baseline",
                color="white",
                fontsize=8,
            )
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    else:
        axes.set_xlabel(f"{len(class_names)} classes, from the most training images to the fewest")
        axes.set_ylabel("images")
        axes.set_xlim(-0.5, len(class_names) - 0.5)
        axes.spines[["top", "right"]].set_visible(False)
    if len(parts) > 1:
        figure.legend(loc="outside upper center", ncols=len(parts), frameon=False, fontsize=9)
    save(figure, file)


def draw_sizes(images: Sequence[ImageRecord], odd: Sequence[int], image_size: int, file: Path) -> None:
    """Draw width against height, one circle a size with its area for how many images have it.

    Args:
        images: All of them.
        odd: Places of those of an odd size, which stand out.
        image_size: Side of the square that a model sees, which is marked.
        file: A PNG, written over.
    """
    figure = Figure(figsize=(4.5, 4.6), layout="constrained")
    axes = figure.subplots()
    strange = {(images[position].width, images[position].height) for position in odd}
    sizes = Counter((image.width, image.height) for image in images)
    for colour, label, kept in (
        (BLUE, "usual sizes", [size for size in sizes if size not in strange]),
        (ORANGE, "odd sizes", list(strange)),
    ):
        if kept:
            area = [12 + 500 * sizes[size] / len(images) for size in kept]
            width, height = np.transpose(kept)
            axes.scatter(width, height, s=area, color=colour, alpha=0.55, linewidth=0, label=label)
    sides = np.array(list(sizes))
    low, high = min(sides.min(), image_size), max(sides.max(), image_size)
    if high > 8 * low:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(ScalarFormatter())
        limits = low / 1.3, high * 1.3
    else:
        margin = 0.08 * (high - low) + 2
        limits = low - margin, high + margin
    axes.plot(limits, limits, color="0.6", linewidth=0.8, linestyle="--", zorder=0, label="as wide as high")
    seen = f"seen: {image_size} × {image_size}"
    axes.plot(image_size, image_size, "s", color="black", markersize=7, fillstyle="none", label=seen)
    axes.set(xlim=limits, ylim=limits, xlabel="width in pixels", ylabel="height in pixels", aspect="equal")
    axes.spines[["top", "right"]].set_visible(False)
    legend = figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    for handle in legend.legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([40])
    save(figure, file)


def draw_sheet(rows: Sequence[Row], names: Mapping[str, str], file: Path) -> None:
    """Lay photographs out as one image: rows side by side, as many as make it about half as wide again as high.

    Args:
        rows: At least one; each gets its classes and its note above its photographs.
        names: Of the classes, as pictures show them.
        file: A PNG, written over; folders above it are made.
    """
    families("".join(row.note for row in rows))  # of all at once: each search reads the fonts of the system
    widths = [max(sum(photo.width + _GAP for photo in row.photos), 8 * _TEXT) for row in rows]
    heights = [max(photo.height for photo in row.photos) + 2 * _TEXT + _GAP for row in rows]
    cell = max(widths) + _GAP
    columns = min(max(round(math.sqrt(1.5 * sum(heights) / cell)), 1), len(rows))
    lines = [range(start, min(start + columns, len(rows))) for start in range(0, len(rows), columns)]
    tall = [max(heights[item] for item in line) for line in lines]
    sheet = Image.new("RGB", (cell * columns + _GAP, sum(tall) + _GAP), "white")
    top = _GAP
    for line, height in zip(lines, tall, strict=True):
        for column, item in enumerate(line):
            left = _GAP + column * cell
            classes = " / ".join(names[label] for label in rows[item].labels)
            note = "/".join(isolated(part) for part in rows[item].note.split("/"))
            title = " · ".join(filter(None, (classes, note)))
            write_text(sheet, (left, top), fitted(title, cell - 2 * _GAP, _TEXT), _TEXT)
            for photo in rows[item].photos:
                sheet.paste(photo.image.resize((photo.width, photo.height)), (left, top + int(1.6 * _TEXT)))
                left += photo.width + _GAP
        top += height
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(file, format="PNG")
