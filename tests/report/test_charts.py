import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kth_lightning.drawing.figures import save, svg_uri
from kth_lightning.report.charts import (
    BLUE,
    ORANGE,
    Course,
    confusion_figure,
    curve_figure,
    draw_curves,
    reliability_figure,
)

TEST = {name: {"value": 0.8, "low": 0.7, "high": 0.9} for name in ("loss", "acc", "kappa")}


def history(epochs: int) -> list[dict[str, float]]:
    names = [f"{part}/{name}" for part in ("train", "val") for name in ("loss", "acc", "kappa")]
    return [
        {"epoch": epoch} | {name: 0.5 + position / 20 for position, name in enumerate(names)} for epoch in range(epochs)
    ]


def pixels_like(file: Path, colour: tuple[int, ...]) -> int:
    with Image.open(file) as image:
        return int((np.abs(np.asarray(image.convert("RGB")).astype(int) - colour).max(axis=2) < 8).sum())


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 3, 500])
def test_curves_show_training_validation_and_test(tmp_path: Path, epochs: int):
    with_test, without = tmp_path / "new" / "with.png", tmp_path / "without.png"
    draw_curves(history(epochs), epochs - 1, TEST, with_test)
    draw_curves(history(epochs), epochs - 1, None, without)
    assert pixels_like(with_test, rgb(BLUE)) > 100
    assert pixels_like(with_test, rgb(ORANGE)) > 100
    assert pixels_like(with_test, (0, 0, 0)) > pixels_like(without, (0, 0, 0)) + 300


def test_curves_are_drawn_where_figures_are_undefined(tmp_path: Path):
    rows = [row | {"val/kappa": math.nan} for row in history(3)]
    nothing = {"value": None, "low": None, "high": None}
    unbounded = {"value": 0.9, "low": None, "high": None}
    draw_curves(rows, 0, TEST | {"kappa": nothing, "loss": unbounded}, tmp_path / "curves.png")
    assert pixels_like(tmp_path / "curves.png", rgb(ORANGE)) > 100


def test_confusion_labels_classes_and_only_the_cells_that_count_something():
    figure = confusion_figure(np.array([[5, 1, 0], [0, 7, 0], [0, 0, 0]]), ["cat", "dog", "emu"])
    axes = figure.axes[0]
    assert {(*text.get_position(), text.get_text()) for text in axes.texts} == {(0, 0, "5"), (1, 0, "1"), (1, 1, "7")}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "emu"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    np.testing.assert_allclose(axes.images[0].get_array(), [[5 / 6, 1 / 6, 0], [0, 1, 0], [0, 0, 0]])


def test_confusion_counts_contrast_with_their_cells():
    axes = confusion_figure(np.array([[9, 1], [0, 7]]), ["cat", "dog"]).axes[0]
    assert {text.get_text(): text.get_color() for text in axes.texts} == {"9": "white", "1": "black", "7": "white"}


@pytest.mark.parametrize("classes", [1, 2, 40, 300])
def test_confusion_image_stays_of_a_usable_size(tmp_path: Path, classes: int):
    names = [f"Pan troglodytes schweinfurthii, subspecies {position}" for position in range(classes)]
    save(confusion_figure(np.eye(classes, dtype=int), names), tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as image:
        assert 200 < min(image.size) <= max(image.size) < 3500


def test_long_class_names_keep_their_beginning_and_end():
    figure = confusion_figure(np.eye(2, dtype=int), ["Pan troglodytes schweinfurthii, no 1", "dog"])
    assert figure.axes[0].get_yticklabels()[0].get_text() == "Pan troglodyte…hii, no 1"


def test_loss_that_falls_far_is_drawn_on_a_logarithmic_axis():
    steep = [row | {"train/loss": 7 / 10 ** row["epoch"]} for row in history(3)]
    assert curve_figure("loss", [Course(steep, 2, TEST)]).axes[0].get_yscale() == "log"
    assert curve_figure("loss", [Course(history(3), 2, TEST)]).axes[0].get_yscale() == "linear"
    undefined = [row | {"train/loss": math.nan, "val/loss": math.nan} for row in history(3)]
    assert curve_figure("loss", [Course(undefined, 2, None)]).axes[0].get_yscale() == "linear"


def test_curves_of_several_runs_share_a_panel_and_one_legend():
    axes = curve_figure("acc", [Course(history(3), 1, TEST), Course(history(5), 4, TEST)]).axes[0]
    assert len(axes.lines) >= 6
    labels = [label for label in axes.get_legend_handles_labels()[1] if not label.startswith("_")]
    assert labels == ["training", "validation", "test, at the best epoch"]


def test_reliability_has_a_point_for_each_confidence_that_occurs():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.99, 0.01], [0.98, 0.02], [0.7, 0.3], [0.31, 0.69]])
    upper, lower = reliability_figure(labels, probabilities).axes
    points = upper.collections[1].get_offsets()
    np.testing.assert_allclose(points, [[0.695, 0.5], [0.985, 1]])
    assert lower.patches[0].get_data().values.sum() == 4


def test_the_same_figure_gives_the_same_svg():
    first, second = (svg_uri(curve_figure("acc", [Course(history(3), 1, TEST)])) for _ in range(2))
    assert first == second
    assert first.startswith("data:image/svg+xml;base64,")


def test_results_need_neither_torch_nor_a_display():
    code = """
import sys, kth_lightning.report.page
sys.exit(any(name in sys.modules for name in ("torch", "lightning", "matplotlib.pyplot")))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
