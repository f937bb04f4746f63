"""Masks: which pixels are objects, of KTH-ANIMALS and of everybody else."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kth_lightning import ImageData
from kth_lightning.data.box import Box
from kth_lightning.data.catalogue import MaskBackground
from kth_lightning.evaluation.masks import objects_in, read_mask

ANIMAL = (slice(10, 20), slice(5, 15))


def drawn(file: Path, animal: object = 255, background: object = 0, mode: str = "L") -> Path:
    depth = {"RGB": 3, "RGBA": 4}.get(mode)
    values = np.zeros((40, 60, depth) if depth else (40, 60), np.uint8)
    values[:], values[ANIMAL] = background, animal
    Image.fromarray(values).save(file, quality=75)
    return file


def seen(file: Path, background: MaskBackground = "zero") -> np.ndarray:
    mask = read_mask(file, background)
    assert mask is not None
    return mask


def test_zero_is_the_background_and_every_other_value_an_object(tmp_path: Path) -> None:
    values = np.array([[0, 7, 255], [0, 7, 0]], np.uint8)
    Image.fromarray(values).save(tmp_path / "grey.png")
    indices = Image.fromarray(values, "P")
    indices.putpalette([255, 255, 255] * 7 + [0, 0, 0] * 249)  # white below black
    indices.save(tmp_path / "palette.png")
    Image.fromarray(values.astype(np.uint16) * 256).save(tmp_path / "deep.png")
    colours = np.zeros((2, 3, 4), np.uint8)
    colours[..., 3] = 255
    colours[:, 1], colours[0, 2] = (0, 0, 90, 255), (0, 80, 0, 255)
    Image.fromarray(colours).save(tmp_path / "colours.png")
    for name in ("grey.png", "palette.png", "deep.png"):
        assert seen(tmp_path / name).tolist() == [[0, 1, 2], [0, 1, 0]]
    assert seen(tmp_path / "colours.png").tolist() == [[0, 2, 1], [0, 2, 0]]
    Image.fromarray(values > 0).save(tmp_path / "bits.png")
    assert seen(tmp_path / "bits.png").tolist() == [[0, 1, 1], [0, 1, 0]]


@pytest.mark.parametrize(("animal", "mode"), [(255, "L"), (180, "L"), ((0, 0, 255), "RGB")])
def test_a_jpeg_mask_shows_one_object_from_half_of_white_on(tmp_path: Path, animal: object, mode: str) -> None:
    file = drawn(tmp_path / "mask.jpg", animal, mode=mode)
    assert len(np.unique(np.asarray(Image.open(file)))) > 2
    mask, expected = seen(file), np.zeros((40, 60), bool)
    expected[ANIMAL] = True
    assert set(np.unique(mask)) == {0, 1}
    assert (mask.astype(bool) != expected).mean() < 0.02


def test_in_kth_animals_the_highest_value_is_the_background(tmp_path: Path) -> None:
    values = np.array([[1, 1, 4], [2, 4, 4]], np.uint8)
    Image.fromarray(values).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([values] * 3, axis=-1)).save(tmp_path / "rgb.png")
    for name in ("grey.png", "rgb.png"):
        assert seen(tmp_path / name, "highest").tolist() == [[1, 1, 0], [2, 0, 0]]


def test_a_mask_may_show_nothing_or_everything_and_one_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    full, empty = (seen(drawn(tmp_path / f"{value}.png", value, value)) for value in (255, 0))
    assert (full == 1).all()
    assert objects_in(full, None) is not None
    assert objects_in(empty, None) is None
    assert not seen(tmp_path / "255.png", "highest").any()
    (tmp_path / "broken.png").write_bytes(b"no image")
    for background in ("zero", "highest"):
        assert read_mask(tmp_path / "broken.png", background) is None
        assert read_mask(tmp_path / "missing.png", background) is None


@pytest.mark.parametrize(("background", "other"), [("zero", 0), ("highest", 255)])
def test_the_mask_is_cut_with_its_box(tmp_path: Path, background: MaskBackground, other: int) -> None:
    values = np.full((40, 60), other, dtype=np.uint8)
    values[10:20, 5:15], values[10:30, 40:50] = 1, 2
    Image.fromarray(values).save(tmp_path / "mask.png")
    mask = seen(tmp_path / "mask.png", background)
    animals = objects_in(mask, Box(0.5, 0.25, 0.5, 0.5))
    assert animals is not None
    assert animals.shape == (20, 30)
    assert (animals[:, 10:20] == 1).all()
    assert animals.sum() == 200
    inside = objects_in(mask, Box(40 / 60, 0.25, 10 / 60, 0.5))
    assert inside is not None
    assert (inside == 1).all()
    assert objects_in(mask, Box(0.3, 0, 0.3, 0.2)) is None


def test_only_the_sources_that_draw_masks_like_kth_say_so(images: Path, tmp_path: Path) -> None:
    assert ImageData(root=str(images)).catalogue.mask_background == "zero"
    drawn = ImageData(sample_size=36, cache_dir=str(tmp_path / "cache"))
    assert drawn.catalogue.mask_background == "highest"
