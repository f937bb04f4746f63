"""Draw a class activation map over its image."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from kth_lightning.drawing.captions import fitted, text_width, write_text

_COLOURS = matplotlib.colormaps["inferno"]  # evenly rising in lightness, and told apart by the colour-blind
_LEAST, _MOST = 0.4, 0.6
_SHORTEST_LONG_SIDE = 360  # pixels; below that the words would be larger than the image
_INK, _BAR, _PAPER = "#1a1a1a", "#d9722e", "white"


def enlarge(activation: npt.NDArray[np.float32], width: int, height: int) -> npt.NDArray[np.float32]:
    """Stretch a map [h, w] over an image, to [height, width], bilinearly."""
    maps = torch.from_numpy(activation)[None, None]
    return F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)[0, 0].numpy()


def overlay(image: Image.Image, activation: npt.NDArray[np.float32]) -> Image.Image:
    """Lay a map over its RGB image: yellow where it is highest, dark where nothing speaks for the class."""
    top = max(float(activation.max()), np.finfo(np.float32).tiny)
    values = enlarge(activation, image.width, image.height).clip(0) / top
    opacity = (_LEAST + (_MOST - _LEAST) * values)[..., None]
    mixed = (1 - opacity) * np.asarray(image) + opacity * 255 * _COLOURS(values)[..., :3]
    return Image.fromarray(mixed.round().astype(np.uint8))


def captioned(image: Image.Image, names: Sequence[str], probabilities: Sequence[float]) -> Image.Image:
    """Write classes and their probabilities below an image, a line and a bar each.

    A small image is enlarged, so that the words can be read.

    Args:
        image: RGB.
        names: Of the classes, as pictures show them.
        probabilities: As many.
    """
    scale = max(1.0, _SHORTEST_LONG_SIDE / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    image = image.resize(size, Image.Resampling.BICUBIC)
    width = max(image.width, _SHORTEST_LONG_SIDE * 2 // 3)
    text = round(15 * max(1.0, width / 500))
    line, margin = round(text * 1.6), round(text * 0.6)
    sheet = Image.new("RGB", (width, image.height + line * len(names) + 2 * margin), _PAPER)
    sheet.paste(image, ((width - image.width) // 2, 0))
    pen = ImageDraw.Draw(sheet)
    figures = [f"{100 * probability:.1f} %" for probability in probabilities]
    middle, right = width // 2, width - margin - round(text_width("100.0 %", text))
    for row, (name, probability, figure) in enumerate(zip(names, probabilities, figures, strict=True)):
        y = image.height + margin + row * line + line // 2
        write_text(sheet, (margin, y), fitted(name, middle - 2 * margin, text), text, _INK, middle=True)
        length = (right - middle - margin) * probability
        pen.rectangle((middle, y - text // 3, middle + max(1, round(length)), y + text // 3), _BAR)
        write_text(sheet, (width - margin, y), figure, text, _INK, align="right", middle=True)
    return sheet
