"""The photographs that are shown: at their original shape, as a model sees them, augmented, and what is odd."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from kth_lightning.data.augment import PRESETS
from kth_lightning.data.catalogue import Catalogue, Picture
from kth_lightning.data.images import UnreadablePicture, read_rgb
from kth_lightning.data.module import PictureData
from kth_lightning.data.pixels import resize
from kth_lightning.errors import InputError

VIEWS = 7
"""Draws of the augmentation that are shown of a picture."""

_SIDE = 140  # of the longer side of most pictures on the page
_LARGEST = 300
_SHARPNESS = 2  # pixels of a picture for one of the page, for sharp screens
_PAIR = 240
_MEMBERS = 4  # of a group of duplicates


@dataclass(frozen=True)
class Photo:
    """Hold one picture of the page.

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
    """Hold pictures that belong together.

    Attributes:
        title: What they have in common.
        photos: One or more.
        note: A sentence about them; may be empty.
    """

    title: str
    photos: list[Photo]
    note: str = ""


def read_picture(catalogue: Catalogue, place: int, at_least: int) -> Image.Image:
    """Read the picture at a place of the catalogue, as `read_rgb` does.

    Raises:
        InputError: It cannot be read any more.
    """
    try:
        return read_rgb(catalogue.file(place), at_least)
    except UnreadablePicture as error:
        raise InputError(
            f"{catalogue.file(place)} was read before and cannot be any more ({error}); repeat the command, which "
            "looks at the folder anew, or put the picture back"
        ) from None


def original_rows(catalogue: Catalogue, examples: Sequence[Sequence[int]]) -> list[Row]:
    """Show examples of each class uncropped and to one scale; only the very largest are shown smaller than that."""
    sides = [_longer(catalogue.pictures[place]) for places in examples for place in places]
    scale = min(1.0, _SIDE / float(np.percentile(sides, 90)))
    return [
        Row(catalogue.pictures[places[0]].label, [_original(catalogue, place, scale) for place in places])
        for places in examples
    ]


def seen_rows(data: PictureData, places: Sequence[int]) -> list[Row]:
    """Show pictures square and resized, with the pixels that the pixel store gives."""
    rows = []
    for place in places:
        label = data.catalogue.pictures[place].label
        alt = f"{label}, {data.image_size} by {data.image_size} pixels"
        rows.append(Row(label, [_square(_pixels(data, place), label, alt)]))
    return rows


def augmented_rows(data: PictureData, places: Sequence[int]) -> list[Row]:
    """Show each picture clean and in `VIEWS` draws of the augmentation; nothing where it changes nothing."""
    rows: list[Row] = []
    if data.augmentation.preset == PRESETS["none"]:
        return rows
    for place in places:
        picture = data.catalogue.pictures[place]
        views = torch.arange(VIEWS + 1)
        images = torch.tensor(_pixels(data, place)).permute(2, 0, 1).expand(len(views), -1, -1, -1)
        augmented = data.augmentation(images, data.keys[place].expand(len(views)), views)
        pixels = augmented.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        names = ["as it is", *(f"view {view}" for view in range(1, VIEWS + 1))]
        photos = [_square(each, name, f"{picture.label}, {name}") for each, name in zip(pixels, names, strict=True)]
        rows.append(Row(picture.label, photos, picture.path))
    return rows


def duplicate_groups(catalogue: Catalogue) -> tuple[list[list[int]], int]:
    """List the groups of duplicates, and count those with several classes, which come first: a label there is wrong."""
    members: dict[int, list[int]] = defaultdict(list)
    for place, picture in enumerate(catalogue.pictures):
        members[picture.group].append(place)
    within: list[list[int]] = []
    across: list[list[int]] = []
    for places in members.values():
        if len(places) > 1:
            labels = {catalogue.pictures[place].label for place in places}
            (within if len(labels) == 1 else across).append(places)
    return across + within, len(across)


def duplicate_rows(catalogue: Catalogue, groups: Sequence[Sequence[int]]) -> list[Row]:
    """Show the pictures of each group side by side, up to four of them."""
    rows = []
    for places in groups:
        pictures = [catalogue.pictures[place] for place in places]
        labels = sorted({picture.label for picture in pictures})
        same = len({picture.sha256 for picture in pictures}) == 1
        note = "the same file" if same else "nearly the same picture"
        if len(labels) > 1:
            note += ", in different classes"
        if len(places) > _MEMBERS:
            note += f"; {len(places) - _MEMBERS} more of them are not shown"
        rows.append(Row(" / ".join(labels), [_fitted(catalogue, place) for place in places[:_MEMBERS]], note))
    return rows


def odd_sizes(pictures: Sequence[Picture]) -> list[int]:
    """List the pictures of an odd size, the oddest first.

    Odd is a picture more than twice as wide as high or as high as wide, or with less than a quarter or more than four
    times the median picture's area.
    """
    width, height = _sizes(pictures)
    area = width * height
    oddness = np.maximum(np.abs(np.log2(width / height)), np.abs(np.log2(area / np.median(area))) / 2)
    return [int(place) for place in np.argsort(-oddness, kind="stable") if oddness[place] > 1]


def odd_rows(catalogue: Catalogue, places: Sequence[int]) -> list[Row]:
    """Show pictures of an odd size, each fitted into the same square."""
    rows = []
    for place in places:
        picture = catalogue.pictures[place]
        rows.append(Row(picture.label, [_fitted(catalogue, place)], f"{picture.width} × {picture.height}"))
    return rows


def _sizes(pictures: Sequence[Picture]) -> NDArray[np.float64]:
    return np.array([(picture.width, picture.height) for picture in pictures], dtype=float).T


def _longer(picture: Picture) -> int:
    return max(picture.width, picture.height)


def _original(catalogue: Catalogue, place: int, scale: float) -> Photo:
    picture = catalogue.pictures[place]
    smaller = scale * _longer(picture) > _LARGEST
    caption = f"{picture.width} × {picture.height}" + (", not to scale" if smaller else "")
    return _shown(catalogue, place, _LARGEST / _longer(picture) if smaller else scale, caption)


def _fitted(catalogue: Catalogue, place: int) -> Photo:
    picture = catalogue.pictures[place]
    return _shown(catalogue, place, min(1.0, _PAIR / _longer(picture)), picture.path)


def _shown(catalogue: Catalogue, place: int, scale: float, caption: str) -> Photo:
    picture = catalogue.pictures[place]
    width, height = (max(round(scale * side), 2) for side in (picture.width, picture.height))
    image = read_picture(catalogue, place, _SHARPNESS * max(width, height))
    finer = min(_SHARPNESS, picture.width / width, picture.height / height)
    image = image.resize((max(round(finer * width), 1), max(round(finer * height), 1)), Image.Resampling.BICUBIC)
    alt = f"{picture.label}, {picture.path}, {picture.width} by {picture.height} pixels"
    return Photo(image, width, height, caption, alt)


def _pixels(data: PictureData, place: int) -> NDArray[np.uint8]:
    # The same steps as the pixel store's, which would need every picture of the source.
    return resize(read_picture(data.catalogue, place, data.image_size), data.image_size, data.interpolation)


def _square(pixels: NDArray[np.uint8], caption: str, alt: str) -> Photo:
    image = Image.fromarray(pixels)
    side = min(image.width, _LARGEST)
    return Photo(image.resize((side, side)), side, side, caption, alt)
