"""Squares: what models see of images, whose shapes differ."""

from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
MIN_SIZE, MAX_SIZE = 32, 4096
"""Least and largest side in pixels of the images that models see."""

SQUASH, LETTERBOX, CROP = "squash", "letterbox", "crop"
RESIZES = (SQUASH, LETTERBOX, CROP)
"""How an image becomes a square: stretched, whole between two bars, or its middle alone."""

BAR = (124, 116, 104)
"""The colour of a letterbox's bars: ImageNet's mean, which normalisation makes zero to within rounding.

So a network that was trained on ImageNet sees in the bars what its own padding gives it. The colour is the same for
every data set, and stored pixels do not depend on the network that takes them.
"""


class Span(NamedTuple):
    """Say which pixels of a side of an image fill which pixels of a side of the square.

    Attributes:
        start: The first pixel of the image that is seen.
        seen: How many are.
        at: The first pixel of the square that shows them; those before are bar.
        shown: How many do; those behind are bar.
    """

    start: int
    seen: int
    at: int
    shown: int


@dataclass(frozen=True, slots=True)
class Square:
    """How an image of any shape becomes a square.

    Attributes:
        size: Side in pixels.
        interpolation: A key of `INTERPOLATIONS`.
        resize: One of `RESIZES`.
    """

    size: int
    interpolation: str = "bilinear"
    resize: str = SQUASH

    @property
    def identity(self) -> str:
        """Return a text by which stores of images and features are told apart."""
        return f"{self.size} {self.interpolation}" + (f" {self.resize}" if self.resize != SQUASH else "")

    def span(self, along: int, across: int) -> Span:
        """Return what is seen of a side `along` pixels long, of an image whose other side has `across`.

        Both may be symbols of a graph that is exported.
        """
        if self.resize == LETTERBOX:
            longer = cast("int", torch.sym_max(along, across))
            shown = cast("int", torch.sym_max((2 * along * self.size + longer) // (2 * longer), 1))
            return Span(0, along, (self.size - shown) // 2, shown)
        if self.resize == CROP:
            shorter = cast("int", torch.sym_min(along, across))
            return Span((along - shorter) // 2, shorter, 0, self.size)
        return Span(0, along, 0, self.size)

    def enlarges(self, width: int, height: int) -> bool:
        """Tell whether an image has fewer pixels than the square shows of it, along a side."""
        return any(span.seen < span.shown for span in (self.span(width, height), self.span(height, width)))

    def pixels(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Make an RGB image uint8 [size, size, 3]."""
        filter_, (width, height) = INTERPOLATIONS[self.interpolation], image.size
        if self.resize == SQUASH:
            return np.asarray(image.resize((self.size, self.size), filter_))
        columns, rows = self.span(width, height), self.span(height, width)
        right, bottom = columns.start + columns.seen, rows.start + rows.seen
        seen = image.crop((columns.start, rows.start, right, bottom))
        # In two steps: in which order one would take them depends on the version of Pillow, and rounding on the order.
        shown = seen.resize((columns.shown, seen.height), filter_).resize((columns.shown, rows.shown), filter_)
        square = Image.new("RGB", (self.size, self.size), BAR)
        square.paste(shown, (columns.at, rows.at))
        return np.asarray(square)
