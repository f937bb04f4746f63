import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from kth_lightning.data.duplicates import duplicate_groups, fingerprint


def _scene(seed: int, size: tuple[int, int] = (240, 180)) -> Image.Image:
    """Draw an image with the smooth spectrum of photographs."""
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    return image.filter(ImageFilter.GaussianBlur(2))


def _groups(*images: Image.Image) -> list[int]:
    return duplicate_groups([str(index) for index in range(len(images))], [fingerprint(one) for one in images])


def _recompressed(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=30)
    return Image.open(stream).convert("RGB")


@pytest.mark.parametrize(
    "change",
    [
        _recompressed,
        lambda image: image.resize((120, 90)),
        lambda image: ImageEnhance.Brightness(image).enhance(0.75),
        lambda image: ImageEnhance.Contrast(image).enhance(0.8),
        lambda image: image.crop((2, 2, 238, 178)),
        lambda image: image.convert("L").convert("RGB"),
    ],
    ids=["recompressed", "resized", "darker", "flatter", "cropped", "grey"],
)
def test_a_changed_copy_joins_its_original(change) -> None:  # type: ignore[no-untyped-def]
    assert _groups(_scene(1), _scene(2), change(_scene(1))) == [0, 1, 0]


def test_equal_bytes_are_duplicates_whatever_they_show() -> None:
    flat = fingerprint(Image.new("RGB", (50, 50), "white"))
    assert duplicate_groups(["a", "b", "a"], [flat, flat, flat]) == [0, 1, 0]


def test_flat_and_smooth_images_are_no_false_match() -> None:
    gradient = Image.linear_gradient("L")
    objects = [gradient.copy() for _ in range(2)]
    for image, x in zip(objects, (48, 160), strict=True):
        ImageDraw.Draw(image).rectangle((x, 96, x + 16, 112), fill="white")
    noise = np.random.default_rng(0).integers(-8, 9, (2, 32, 32)).repeat(8, axis=1).repeat(8, axis=2)
    noisy = [Image.fromarray((np.asarray(gradient) * 0.8 + 20 + part).astype(np.uint8)) for part in noise]
    stripes = np.where(np.arange(256) // 16 % 2, 20, -20)[:, None]
    striped = [Image.fromarray((np.asarray(gradient) * 0.8 + 25 + sign * stripes).astype(np.uint8)) for sign in (1, -1)]
    curved = [Image.fromarray((255 * (np.asarray(gradient) / 255) ** power).astype(np.uint8)) for power in (1, 3)]
    greys = [Image.new("L", (60, 60), grey) for grey in (10, 10, 240)]
    for images in (objects, noisy, striped, curved, greys):
        assert _groups(*images) == list(range(len(images)))


def test_groups_close_over_pairs_and_take_the_first_index() -> None:
    steps = [_scene(1).crop((shift, 0, 240, 180)) for shift in (0, 3, 6, 9, 12, 15)]
    assert _groups(steps[0], steps[-1]) == [0, 1]
    assert _groups(_scene(2), *reversed(steps)) == [0, 1, 1, 1, 1, 1, 1]


def test_the_tree_misses_no_pair_among_thousands() -> None:
    scenes = [_scene(seed, (64, 48)) for seed in range(1500)]
    copies = [ImageEnhance.Brightness(scene).enhance(0.8) for scene in scenes[::3]]
    groups = _groups(*scenes, *copies)
    assert groups[:1500] == list(range(1500))
    assert groups[1500:] == list(range(0, 1500, 3))


def test_no_images_have_no_groups() -> None:
    assert _groups() == []
    assert _groups(_scene(1)) == [0]
