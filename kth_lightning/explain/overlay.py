"""Draw a class activation map over its image."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from kth_lightning.data.square import Square
from kth_lightning.drawing.captions import fitted, text_width, write_text

_COLOURS = matplotlib.colormaps["inferno"]  # evenly rising in lightness, and told apart by the colour-blind
_LEAST, _MOST = 0.4, 0.6
_SHORTEST_LONG_SIDE = 360  # pixels; below that the words would be larger than the image
_INK, _BAR, _PAPER = "#1a1a1a", "#d9722e", "white"


def enlarge(
    activation: npt.NDArray[np.float32], width: int, height: int, square: Square | None = None
) -> npt.NDArray[np.float32]:
    """Stretch a map over an image, bilinearly.

    Args:
        activation: Of the square that the classifier saw, [h, w].
        width: Of the image.
        height: Of the image.
        square: How the image became that square; None where it is the square.

    Returns:
        Shape [height, width]; minus infinity where the square shows nothing of the image.
    """
    square = square or Square(1)
    columns, rows = _places(square, width, height), _places(square, height, width)
    grid = torch.stack(torch.broadcast_tensors(columns, rows[:, None]), dim=-1)
    maps = torch.from_numpy(activation).double()[None, None]
    enlarged = F.grid_sample(maps, grid[None], mode="bilinear", padding_mode="border", align_corners=False)
    return enlarged[0, 0].masked_fill((grid.abs() > 1).any(-1), -torch.inf).float().numpy()


def _places(square: Square, along: int, across: int) -> Tensor:
    """Return where a side of the square shows the middle of each pixel of an image's side, -1 to 1 from end to end."""
    start, seen, at, shown = square.span(along, across)
    middles = torch.arange(along, dtype=torch.float64) + 0.5 - start
    return (at + middles * shown / seen) * 2 / square.size - 1


def overlay(image: Image.Image, activation: npt.NDArray[np.float32], square: Square | None = None) -> Image.Image:
    """Lay a map over its RGB image: yellow where it is highest, dark where nothing speaks for the class.

    Args:
        image: In its own shape, or the square that the classifier saw.
        activation: Of that square, [h, w].
        square: How the image became the square; None where it is the square.
    """
    top = max(float(activation.max()), np.finfo(np.float32).tiny)
    values = enlarge(activation, image.width, image.height, square).clip(0) / top
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
