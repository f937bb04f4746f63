"""The photographs that are shown: at their original shape, as a model sees them, augmented, and what is odd."""

import base64
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from kth_lightning.data.augmentation.augmentation import augmented
from kth_lightning.data.catalogue import Catalogue, ImageRecord
from kth_lightning.data.images import UnreadableImage, read_rgb
from kth_lightning.data.module import ImageData
from kth_lightning.errors import InputError

VIEWS = 7
"""Draws of the augmentation that are shown of an image."""

_QUALITY = 80  # of JPEG
_SIDE = 140  # of the longer side of most images on the page
_LARGEST = 300
_SHARPNESS = 2  # pixels of an image for one of the page, for sharp screens
_PAIR = 240
_MEMBERS = 4  # of a group of duplicates


@dataclass(frozen=True)
class Photo:
    """Hold one image of the page.

    Attributes:
        image: RGB, with up to twice the pixels it takes on the page.
        width: On the page, in its pixels.
        height: On the page, in its pixels.
        caption: For all.
        alt: For those who do not see it.
    """

    image: Image.Image
    width: int
    height: int
    caption: str
    alt: str


@dataclass(frozen=True)
class Row:
    """Hold images that belong together.

    Attributes:
        labels: Their classes.
        photos: One or more.
        note: A sentence about them; may be empty.
    """

    labels: tuple[str, ...]
    photos: list[Photo]
    note: str = ""

    @property
    def title(self) -> str:
        """Name the classes."""
        return " / ".join(self.labels)


def read_image(catalogue: Catalogue, position: int, at_least: int) -> Image.Image:
    """Read the image at an index of the catalogue, as `read_rgb` does.

    Raises:
        InputError: It cannot be read any more.
    """
    try:
        return read_rgb(catalogue.pixels(position), at_least, catalogue.read_options)
    except UnreadableImage as error:
        raise InputError(
            f"{catalogue.file(position)} can no longer be read ({error}); repeat the command, which "
            "reads the folder again, or put the image back"
        ) from None


def jpeg_uri(image: Image.Image) -> str:
    """Return an image as a data URI."""
    stream = BytesIO()
    image.save(stream, format="JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def original_rows(catalogue: Catalogue, examples: Sequence[Sequence[int]]) -> list[Row]:
    """Show examples of each class uncropped and to one scale; only the very largest are shown smaller than that."""
    sides = [_longer(catalogue.images[position]) for positions in examples for position in positions]
    scale = min(1.0, _SIDE / float(np.percentile(sides, 90)))
    return [
        Row((catalogue.images[positions[0]].label,), [_original(catalogue, position, scale) for position in positions])
        for positions in examples
    ]


def seen_rows(data: ImageData, positions: Sequence[int]) -> list[Row]:
    """Show images square and resized, with the pixels that the pixel store gives."""
    rows = []
    for position in positions:
        label = data.catalogue.images[position].label
        alt = f"{label}, {data.image_size} by {data.image_size} pixels"
        rows.append(Row((label,), [_square(_pixels(data, position), label, alt)]))
    return rows


def augmented_rows(data: ImageData, positions: Sequence[int]) -> list[Row]:
    """Show each image clean and in `VIEWS` draws of the augmentation; nothing where it changes nothing."""
    rows: list[Row] = []
    if data.augmentation is None:
        return rows
    for position in positions:
        image = data.catalogue.images[position]
        views = torch.arange(VIEWS + 1)
        images = torch.tensor(_pixels(data, position)).permute(2, 0, 1).repeat(len(views), 1, 1, 1)
        drawn = augmented(data.augmentation, images, data.keys[position].expand(len(views)), views)
        pixels = drawn.permute(0, 2, 3, 1).numpy()
        names = ["as it is", *(f"view {view}" for view in range(1, VIEWS + 1))]
        photos = [_square(item, name, f"{image.label}, {name}") for item, name in zip(pixels, names, strict=True)]
        rows.append(Row((image.label,), photos, image.name))
    return rows


def duplicate_groups(catalogue: Catalogue) -> tuple[list[list[int]], int]:
    """List the groups of duplicates, and count those with several classes, which come first: a label there is wrong."""
    members: dict[int, list[int]] = defaultdict(list)
    for position, image in enumerate(catalogue.images):
        members[image.duplicates].append(position)
    within: list[list[int]] = []
    across: list[list[int]] = []
    for positions in members.values():
        if len(positions) > 1:
            labels = {catalogue.images[position].label for position in positions}
            (within if len(labels) == 1 else across).append(positions)
    return across + within, len(across)


def duplicate_rows(catalogue: Catalogue, groups: Sequence[Sequence[int]]) -> list[Row]:
    """Show the images of each group side by side, up to four of them."""
    rows = []
    for positions in groups:
        images = [catalogue.images[position] for position in positions]
        labels = tuple(sorted({image.label for image in images}))
        same = len({image.content for image in images}) == 1
        note = "the same file" if same else "nearly the same image"
        if len(labels) > 1:
            note += ", in different classes"
        if len(positions) > _MEMBERS:
            note += f"; {len(positions) - _MEMBERS} more of them are not shown"
        rows.append(Row(labels, [_fitted(catalogue, position) for position in positions[:_MEMBERS]], note))
    return rows


def odd_sizes(images: Sequence[ImageRecord]) -> list[int]:
    """List the images of an odd size, the oddest first.

    Odd is an image more than twice as wide as high or as high as wide, or with less than a quarter or more than four
    times the median image's area.
    """
    width, height = _sizes(images)
    area = width * height
    oddness = np.maximum(np.abs(np.log2(width / height)), np.abs(np.log2(area / np.median(area))) / 2)
    return [int(position) for position in np.argsort(-oddness, kind="stable") if oddness[position] > 1]


def odd_rows(catalogue: Catalogue, positions: Sequence[int]) -> list[Row]:
    """Show images of an odd size, each fitted into the same square."""
    rows = []
    for position in positions:
        image = catalogue.images[position]
        rows.append(Row((image.label,), [_fitted(catalogue, position)], f"{image.width} × {image.height}"))
    return rows


def suspect_rows(catalogue: Catalogue, suspects: Sequence[tuple[int, str, float]]) -> list[Row]:
    """Show images whose label is doubted, each fitted into the same square.

    Args:
        catalogue: The images.
        suspects: The index of each, the class that it may show instead, and how much its label is doubted.
    """
    rows = []
    for position, suggested, score in suspects:
        labels = (catalogue.images[position].label, suggested)
        rows.append(Row(labels, [_fitted(catalogue, position)], f"{score:.2f}"))
    return rows


def _sizes(images: Sequence[ImageRecord]) -> NDArray[np.float64]:
    return np.array([(image.width, image.height) for image in images], dtype=float).T


def _longer(image: ImageRecord) -> int:
    return max(image.width, image.height)


def _original(catalogue: Catalogue, position: int, scale: float) -> Photo:
    image = catalogue.images[position]
    smaller = scale * _longer(image) > _LARGEST
    caption = f"{image.width} × {image.height}" + (", not to scale" if smaller else "")
    return _shown(catalogue, position, _LARGEST / _longer(image) if smaller else scale, caption)


def _fitted(catalogue: Catalogue, position: int) -> Photo:
    image = catalogue.images[position]
    return _shown(catalogue, position, min(1.0, _PAIR / _longer(image)), image.name)


def _shown(catalogue: Catalogue, position: int, scale: float, caption: str) -> Photo:
    record = catalogue.images[position]
    width, height = (max(round(scale * side), 2) for side in (record.width, record.height))
    image = read_image(catalogue, position, _SHARPNESS * max(width, height))
    finer = min(_SHARPNESS, image.width / width, image.height / height)
    image = image.resize((max(round(finer * width), 1), max(round(finer * height), 1)), Image.Resampling.BICUBIC)
    alt = f"{record.label}, {record.name}, {record.width} by {record.height} pixels"
    return Photo(image, width, height, caption, alt)


def _pixels(data: ImageData, position: int) -> NDArray[np.uint8]:
    # The same steps as the pixel store's, which would need every image of the source.
    return data.square.pixels(read_image(data.catalogue, position, data.image_size))


def _square(pixels: NDArray[np.uint8], caption: str, alt: str) -> Photo:
    image = Image.fromarray(pixels)
    side = min(image.width, _LARGEST)
    return Photo(image.resize((side, side)), side, side, caption, alt)
