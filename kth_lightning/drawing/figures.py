"""Figures of matplotlib as files, data URIs and pixels, their text as it stands and in fonts that have it."""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text

from kth_lightning.drawing.fonts import families
from kth_lightning.drawing.names import drawable

_DPI = 150


def set_plain_text(figure: Figure) -> None:
    """Have a figure's text drawn as it stands, never as a formula, in fonts that have its characters.

    `save`, `svg_uri` and `pixels` do it; who measures text before must call it then.
    """
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    families("".join(text.get_text() for text in texts))  # of all at once: each search reads the fonts of the system
    for text in texts:
        lines = [drawable(line) for line in text.get_text().split("\n")]
        text.set_text("\n".join(lines))
        text.set_parse_math(False)
        text.set_usetex(False)
        text.set_fontfamily(families("".join(lines)))


def save(figure: Figure, file: Path) -> None:
    """Write a figure as PNG at 150 dots per inch; folders above the file are made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    with _plain(figure):
        canvas.print_png(file)  # draws once, where `savefig` does so two or three times


def svg_uri(figure: Figure) -> str:
    """Return a figure as a data URI that an <img> shows sharp at any size; the same figure gives the same text."""
    stream = io.BytesIO()
    canvas = FigureCanvasSVG(figure)
    with _plain(figure), rc_context({"svg.hashsalt": "kth_lightning"}):
        canvas.print_svg(stream, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(stream.getvalue()).decode()}"


def pixels(figure: Figure) -> npt.NDArray[np.uint8]:
    """Return a figure as RGB pixels [height, width, 3], at 100 dots per inch."""
    figure.set_dpi(100)
    canvas = FigureCanvasAgg(figure)
    with _plain(figure):
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


@contextmanager
def _plain(figure: Figure) -> Iterator[None]:
    set_plain_text(figure)
    # Axes make ticks when they are drawn, by the settings of then.
    with rc_context({"text.usetex": False, "font.family": [families("")[0]]}):
        yield
