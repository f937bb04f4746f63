import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from kth_lightning.data.square import BAR, INTERPOLATIONS, Square


def red_half(width: int, height: int) -> Image.Image:
    """Draw an image whose right half is red and whose lower half is blue, on black."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, width // 2 :, 0] = 200
    pixels[height // 2 :, :, 2] = 200
    return Image.fromarray(pixels)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def bars(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (pixels == BAR).all(-1)
    return found


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_squashed_image_is_stretched_as_it_always_was(interpolation: str) -> None:
    image = noise(100, 37)
    pixels = Square(40, interpolation).pixels(image)
    np.testing.assert_array_equal(pixels, np.asarray(image.resize((40, 40), INTERPOLATIONS[interpolation])))
    assert Square(40, interpolation).identity == f"40 {interpolation}"  # by which stores of earlier versions are found


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_letterbox_shows_the_whole_image_in_its_shape_between_even_bars(interpolation: str) -> None:
    square = Square(40, interpolation, "letterbox")
    wide, high = square.pixels(noise(100, 50)), square.pixels(noise(50, 100))
    assert bars(wide)[:10].all()
    assert bars(wide)[30:].all()
    assert not bars(wide)[10:30].any()
    assert bars(high)[:, :10].all()
    assert bars(high)[:, 30:].all()
    assert not bars(high)[:, 10:30].any()
    halves = Square(40, "nearest", "letterbox").pixels(red_half(100, 50))
    assert (halves[10:30, :, 0] == np.repeat([0, 200], 20)).all()
    assert (halves[10:30, :, 2] == np.repeat([0, 200], 10)[:, None]).all()


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_crop_shows_the_middle_and_nothing_of_what_lies_beside_it(interpolation: str) -> None:
    pixels = np.full((50, 100, 3), 255, np.uint8)
    pixels[:, 25:75] = np.asarray(noise(50, 50)) // 2
    shown = Square(40, interpolation, "crop").pixels(Image.fromarray(pixels))
    np.testing.assert_array_equal(shown, Square(40, interpolation).pixels(Image.fromarray(pixels[:, 25:75])))
    turned = Square(40, interpolation, "crop").pixels(Image.fromarray(pixels.transpose(1, 0, 2)))
    rows = pixels.transpose(1, 0, 2)[25:75]
    np.testing.assert_array_equal(turned, Square(40, interpolation).pixels(Image.fromarray(rows)))


@pytest.mark.parametrize("resize", ["letterbox", "crop"])
def test_square_images_are_the_same_in_every_shape(resize: str) -> None:
    for side in (16, 40, 90):
        np.testing.assert_array_equal(
            Square(40, "bicubic", resize).pixels(noise(side, side)), Square(40, "bicubic").pixels(noise(side, side))
        )


@pytest.mark.parametrize("resize", ["squash", "letterbox", "crop"])
@pytest.mark.parametrize("size", [(1, 900), (900, 1), (41, 40), (16, 17)])
def test_images_of_any_shape_fill_the_square(resize: str, size: tuple[int, int]) -> None:
    pixels = Square(40, "bilinear", resize).pixels(Image.new("RGB", size, "white"))
    assert pixels.shape == (40, 40, 3)
    shown = ~bars(pixels)
    assert (pixels[shown] == 255).all()
    assert shown.any()
    assert shown.all() or resize == "letterbox"


def test_stores_are_told_apart_by_the_shape() -> None:
    assert len({Square(224, resize=resize).identity for resize in ("squash", "letterbox", "crop")}) == 3
