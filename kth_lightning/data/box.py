"""A box: the part of an image file that is an example of its own."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_DECIMALS = 6
_ROUNDING = 0.002  # by which detectors' boxes reach out of the image
_SHARES = "write x, y, width and height as shares of the image's width and height, from 0 to 1"

NO_BOX = "box that is none"
_BETWEEN = re.compile(r"[\s,;]+")


class Box(NamedTuple):
    """A part of an image, in shares of the width and height of the upright image.

    Attributes:
        x: Of its left side, from the left.
        y: Of its upper side, from the top.
        width: Above 0.
        height: Above 0.
    """

    x: float
    y: float
    width: float
    height: float

    def __str__(self) -> str:
        return " ".join(f"{round(value, _DECIMALS):g}" for value in self)

    @property
    def fault(self) -> str:
        """Say why it can be cut out of no image, as the audit has it; empty where it can."""
        if not all(map(math.isfinite, self)):
            return f"{NO_BOX}: {self}; {_SHARES}"
        if self.width <= 0 or self.height <= 0:
            return f"box of no area: {self}; {_SHARES}"
        low, high = min(self.x, self.y), max(self.x + self.width, self.y + self.height)
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            return f"box outside the image: {self}; {_SHARES}"
        return ""

    def pixels(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return its left, upper, right and lower side in pixels of an upright image of this width and height."""
        left, right = _pixels(self.x, self.width, size[0])
        upper, lower = _pixels(self.y, self.height, size[1])
        return left, upper, right, lower

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return its width and height in pixels of an upright image of this width and height."""
        left, upper, right, lower = self.pixels(size)
        return right - left, lower - upper


class Crop(NamedTuple):
    """A box of an image file."""

    file: Path
    box: Box


FileOrCrop = Path | Crop
"""A file whose whole image is meant, or a box of it."""


def read_box(text: str) -> Box:
    """Read four numbers between spaces, commas or semicolons, also in brackets.

    Raises:
        ValueError: With the reason, as the audit has it.
    """
    try:
        return make_box(map(float, _BETWEEN.split(text.strip("[]() "))))
    except (TypeError, ValueError):
        raise ValueError(f"{NO_BOX}: {text[:40]!r}; {_SHARES}") from None


def make_box(numbers: Iterable[float]) -> Box:
    """Make a box of four numbers, rounded such that one from single precision is the same.

    Raises:
        TypeError: They are not four.
    """
    return Box(*(round(number, _DECIMALS) for number in numbers))


def _pixels(start: float, length: float, side: int) -> tuple[int, int]:
    first = min(max(round(start * side), 0), side - 1)
    return first, max(min(round((start + length) * side), side), first + 1)
