"""Text written into images."""

from typing import Literal

import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties
from PIL import Image

from kth_lightning.drawing.fonts import families
from kth_lightning.drawing.names import drawable

_ASCENT, _DESCENT = 0.93, 0.24
"""Of a line, as shares of the size of the text."""

_ROOM = 0.5  # around a line, for accents and scripts that leave it
_PIXEL = 72  # dots per inch at which a point is a pixel


def write_text(
    image: Image.Image,
    position: tuple[float, float],
    text: str,
    size: float,
    colour: str = "black",
    align: Literal["left", "center", "right"] = "left",
    middle: bool = False,
) -> None:
    """Write a line of text into an RGB image, in fonts that have its characters, from right to left where it is so.

    Args:
        image: Changed in place.
        position: Pixels from the left and from above, where the text begins, has its middle or ends.
        text: A line.
        size: In pixels.
        colour: As matplotlib takes it.
        align: What lies at the position.
        middle: Whether the position is the middle of the line's height; its top otherwise.
    """
    text = drawable(text)
    font, width = _font(text, size), text_width(text, size)
    room = round(_ROOM * size)
    height = round((_ASCENT + _DESCENT) * size)
    renderer = RendererAgg(round(width) + 2 * room + 1, height + 2 * room, _PIXEL)
    context = renderer.new_gc()
    context.set_foreground(colour)
    renderer.draw_text(context, room, room + round(_ASCENT * size), text, font, 0)
    left = position[0] - {"left": 0.0, "center": width / 2, "right": width}[align]
    top = position[1] - (height / 2 if middle else 0)
    drawn = Image.fromarray(np.asarray(renderer.buffer_rgba()))
    image.paste(drawn, (round(left) - room, round(top) - room), drawn)


def text_width(text: str, size: float) -> float:
    """Return the width of a line in pixels."""
    return RendererAgg(1, 1, _PIXEL).get_text_width_height_descent(text, _font(text, size), ismath=False)[0]


def fitted(text: str, room: float, size: float) -> str:
    """Shorten a text with an ellipsis to so many pixels, where it is longer."""
    text = drawable(text)
    if text_width(text, size) <= room:
        return text
    while text and text_width(f"{text}…", size) > room:
        text = text[:-1]
    return f"{text}…"


def _font(text: str, size: float) -> FontProperties:
    return FontProperties(family=families(text), size=size)
