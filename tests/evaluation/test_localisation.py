from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kth_lightning.data.catalogue import Catalogue, ImageRecord
from kth_lightning.data.square import Square
from kth_lightning.errors import InputError
from kth_lightning.evaluation.localisation import localise, score
from kth_lightning.models import BenchmarkCNN

CLASSES = ["red", "green", "blue"]
SQUARE = Square(64)
BOX = (slice(20, 50), slice(70, 110))


def animals(shape: tuple[int, int], *boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Number boxes of (top, left, bottom, right)."""
    mask = np.zeros(shape, np.int64)
    for number, (top, left, bottom, right) in enumerate(boxes, start=1):
        mask[top:bottom, left:right] = number
    return mask


def activation(shape: tuple[int, int], *boxes: tuple[int, int, int, int], low: float = 0.0) -> np.ndarray:
    return np.where(animals(shape, *boxes) > 0, np.float32(1), np.float32(low)).astype(np.float32)


def colour_detector(resize: str = "squash") -> BenchmarkCNN:
    """Build a network whose map of a class is the channel of its colour."""
    settings = {"class_names": CLASSES, "image_size": 64, "resize": resize}
    model = BenchmarkCNN(3, filters=(3,), block_dropout=(0.0,), **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        model.blocks[0][0].weight.zero_()[range(3), range(3), 1, 1] = 1
        model.head[1].weight.copy_(torch.eye(3))
    return model.eval()


def catalogue(folder: Path, images: int = 3, box: tuple[slice, slice] = BOX) -> Catalogue:
    """Draw a box of the class's colour on black, and its mask, in images of 120x80; every third has no mask."""
    entries = []
    for number in range(images):
        label = CLASSES[number % 3]
        pixels, mask = np.zeros((80, 120, 3), np.uint8), np.zeros((80, 120), np.uint8)
        pixels[(*box, number % 3)], mask[box] = 255, 255
        Image.fromarray(pixels).save(folder / f"{number}.png")
        Image.fromarray(mask).save(folder / f"{number}-mask.png")
        name = f"{number}-mask.png" if label != "blue" else ""
        entries.append(ImageRecord(f"{number}.png", label, name, 120, 80, f"{number:064x}", number))
    return Catalogue(folder, tuple(entries))


def test_overlaps_are_those_of_the_places_above_a_fifth_of_the_highest() -> None:
    mask = animals((20, 20), (0, 0, 10, 10))
    assert score(activation((20, 20), (0, 0, 10, 10), low=0.19), mask, SQUARE) == (1, 1, 1)
    assert score(activation((20, 20), (0, 0, 10, 10), low=0.21), mask, SQUARE) == (1, 0.25, 0.25)
    assert score(activation((20, 20), (0, 5, 10, 15)), mask, SQUARE) == (1, pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert score(activation((20, 20), (10, 10, 20, 20)), mask, SQUARE) == (0, 0, 0)


def test_the_box_is_that_of_the_largest_part_and_of_the_animal_it_fits_best() -> None:
    mask = animals((20, 20), (0, 0, 4, 4), (10, 10, 20, 20))
    found = score(activation((20, 20), (0, 0, 3, 3), (10, 10, 20, 18)), mask, SQUARE)
    assert found == (1, pytest.approx((9 + 80) / 116), pytest.approx(0.8))


def test_pointing_takes_the_middle_of_a_place_at_the_border_of_the_map() -> None:
    maps = np.array([[1, 0], [0, 0]], np.float32)
    assert score(maps, animals((40, 80), (8, 16, 12, 24)), SQUARE).pointing == 1
    assert score(maps, animals((40, 80), (0, 0, 8, 16)), SQUARE).pointing == 0


def test_a_map_that_is_nowhere_positive_still_has_a_highest_place() -> None:
    found = score(activation((20, 20), (0, 0, 10, 10), low=-2.0) - 2, animals((20, 20), (0, 0, 10, 10)), SQUARE)
    assert found == (1, 1, 1)
    coarse = np.array([[-5, -5, -5], [-5, -1, -5], [-5, -5, -5]], np.float32)
    assert 0 < score(coarse, animals((20, 20), (0, 0, 20, 20)), SQUARE).iou_mask <= 4 / 400


def test_a_map_that_is_highest_in_a_bar_points_at_no_animal() -> None:
    square, mask = Square(40, resize="letterbox"), animals((20, 40), (0, 0, 20, 40))
    assert score(activation((40, 40), (0, 0, 5, 5)), mask, square).pointing == 0
    assert score(activation((40, 40), (10, 0, 15, 5)), mask, square).pointing == 1


def test_of_many_images_as_many_are_measured_as_asked_for(tmp_path: Path) -> None:
    images = catalogue(tmp_path, 60)
    some, again = (localise(colour_detector(), images, range(60), most=10) for _ in range(2))
    assert some is not None
    assert some.summary["n"] == 10
    assert some == again
    everything = localise(colour_detector(), images, range(60), most=40)
    assert everything is not None
    assert everything.summary["n"] == 40


def test_maps_of_the_true_class_are_measured_in_the_images_own_shape(tmp_path: Path) -> None:
    by_class = sorted(range(60), key=lambda number: number % 3)
    found = localise(colour_detector(), catalogue(tmp_path, 60), by_class)
    assert found is not None
    assert found.summary["n"] == 40
    assert found.summary["pointing"] == {"value": 1.0, "low": pytest.approx(0.9124, abs=1e-4), "high": 1.0}
    assert found.summary["iou_mask"]["value"] > 0.8
    assert found.summary["iou_box"]["value"] > 0.8
    covered = 30 * 40 / (80 * 120)
    assert found.summary["whole_picture"] == pytest.approx(
        {"pointing": covered, "iou_mask": covered, "iou_box": covered}
    )
    assert [(row["class"], row["n"], row["pointing"]) for row in found.rows] == [("green", 20, 1.0), ("red", 20, 1.0)]
    assert {"pointing_low", "iou_mask_high", "iou_box_low"} <= found.rows[0].keys()


@pytest.mark.parametrize("resize", ["letterbox", "crop"])
def test_maps_are_measured_where_the_square_shows_the_image(resize: str, tmp_path: Path) -> None:
    in_the_corner = catalogue(tmp_path, 6, (slice(0, 30), slice(24, 54)))
    found = localise(colour_detector(resize), in_the_corner, range(6))
    assert found is not None
    assert found.summary["pointing"]["value"] == 1
    assert found.summary["iou_mask"]["value"] > 0.7
    assert found.summary["iou_box"]["value"] > 0.7


def test_a_map_of_the_wrong_class_finds_nothing(tmp_path: Path) -> None:
    model = colour_detector()
    model.class_names = ["green", "blue", "red"]
    found = localise(model, catalogue(tmp_path), range(3))
    assert found is not None
    assert found.summary["pointing"]["value"] == 0


def test_intervals_are_of_the_means_and_repeat(tmp_path: Path) -> None:
    images = catalogue(tmp_path, 12)
    for number in (0, 1):
        Image.fromarray(np.zeros((80, 120, 3), np.uint8)).save(tmp_path / f"{number}.png")
    found, again = (localise(colour_detector(), images, range(12)) for _ in range(2))
    assert found == again
    assert found is not None
    estimate = found.summary["iou_mask"]
    assert estimate["low"] < estimate["value"] < estimate["high"]


def test_images_without_a_mask_or_that_have_gone_are_left_out(tmp_path: Path) -> None:
    images = catalogue(tmp_path, 6)
    (tmp_path / "0.png").unlink()
    (tmp_path / "1-mask.png").write_bytes(b"")
    found = localise(colour_detector(), images, range(6))
    assert found is not None
    assert found.summary["n"] == 2
    assert localise(colour_detector(), images, [2, 5]) is None
    assert localise(colour_detector(), images, []) is None


def test_a_class_that_the_model_does_not_know_is_named(tmp_path: Path) -> None:
    model = colour_detector()
    model.class_names = ["red", "yellow", "blue"]
    with pytest.raises(InputError, match="green"):
        localise(model, catalogue(tmp_path), range(3))


def test_masks_whose_objects_cover_most_of_the_images_are_remarked_on(tmp_path: Path) -> None:
    images = catalogue(tmp_path, 6)
    found = localise(colour_detector(), images, range(6))
    assert found is not None
    assert found.remark == ""
    for file in tmp_path.glob("*-mask.png"):
        Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
    found = localise(colour_detector(), images, range(6))
    assert found is not None
    assert found.remark.startswith("the masks' objects cover 87.5 % of the images on the average, since every value")
    assert found.summary["pointing"]["value"] == 0
    found = localise(colour_detector(), replace(images, mask_background="highest"), range(6))
    assert found is not None
    assert (found.remark, found.summary["pointing"]["value"]) == ("", 1)
