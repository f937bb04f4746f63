"""Image files of every kind, decoded to RGB."""

import logging
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})

MIN_SIDE = 16
"""Pixels that both sides of an image need."""

# A file's content may differ from what its suffix says; formats that start other programs (EPS) stay out.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_ORIENTATION = 0x0112
_MAX_BYTES = 2_000_000_000  # of 16-bit colours, more pixels than Pillow takes
_START_OF_SCAN, _END_OF_JPEG = b"\xff\xda", b"\xff\xd9"
_TAIL = 16  # zeros that no entropy-coded end of a JPEG file has

# Pillow warns about odd files; what matters is raised below. Filters set once are safe in threads, contexts are not.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


class UnreadableImage(Exception):
    """Say why a file gives no image: "unreadable: ...", "truncated: ..." or "too large: ..."."""


def is_image_name(file: Path) -> bool:
    """Tell whether a file's name says that it is an image."""
    return file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")


def read_rgb(file: Path, at_least: int | None = None) -> Image.Image:
    """Decode an image to RGB, upright as its EXIF tag says, transparency over white, 16 bits scaled to 8.

    Args:
        file: JPEG, PNG, WebP, BMP, TIFF or GIF, whatever its suffix; of an animation the first frame.
        at_least: Let JPEG files decode at a reduced scale while both sides stay at least twice this many pixels.

    Raises:
        UnreadableImage: The file is missing, broken or too large.
    """
    with open_image(file) as stream:
        return decode(stream, at_least)[0]


@contextmanager
def open_image(file: Path) -> Iterator[BufferedReader]:
    """Open a file that may be an image; a pipe or a device, whose end may never come, is none.

    Raises:
        UnreadableImage: The file is missing, no regular file, or cannot be read.
    """
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # opening a folder says so itself
            raise UnreadableImage("unreadable: no regular file")
        if status.st_size > _MAX_BYTES:
            raise UnreadableImage(f"too large: {status.st_size:,} bytes")
        with file.open("rb") as stream:
            yield stream
    except (OSError, ValueError) as error:  # ValueError of a name that no file can have
        raise UnreadableImage(f"unreadable: {getattr(error, 'strerror', None) or error}") from None


def decode(stream: IO[bytes], at_least: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """Decode as `read_rgb` does, and return the full width and height in upright pixels beside the image.

    Raises:
        UnreadableImage: The bytes are broken or the image is too large.
    """
    try:
        with Image.open(stream, formats=_FORMATS) as image:
            size = image.size
            if at_least is not None:
                image.draft(None, (2 * at_least, 2 * at_least))
            image.load()
            if image.format == "JPEG" and _ends_in_zeros(stream):
                raise UnreadableImage("truncated: zeros stand where the rest of the image should")
            if _orientation(image) >= 5:
                size = size[1], size[0]
            return upright_rgb(image), size
    except UnreadableImage:
        raise
    except Image.DecompressionBombError:
        raise UnreadableImage(f"too large: more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels") from None
    except UnidentifiedImageError:
        raise UnreadableImage("unreadable: its bytes are in no image format known here") from None
    except Exception as error:  # Pillow's parsers raise whatever the broken bytes make them stumble over
        kind = "truncated" if "truncated" in str(error).lower() else "unreadable"
        raise UnreadableImage(f"{kind}: {' '.join(str(error).split()) or type(error).__name__}") from None


def _ends_in_zeros(stream: IO[bytes]) -> bool:
    """Tell whether a JPEG file, whose zeros decode to grey without complaint, was filled up with them."""
    stream.seek(-min(_TAIL, stream.seek(0, os.SEEK_END)), os.SEEK_END)
    if any(stream.read()):
        return False
    stream.seek(0)
    content = stream.read()
    return content.rfind(_END_OF_JPEG) < content.rfind(_START_OF_SCAN)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Turn an image upright as its EXIF tag says, lay transparency over white, and scale 16 bits to 8."""
    return _to_rgb(ImageOps.exif_transpose(image) if _orientation(image) > 1 else image)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block leaves the pixels as good as they were
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray(np.round(np.asarray(image) / 257.0).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return _stretched(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _stretched(image: Image.Image) -> Image.Image:
    """Scale 32-bit grey values, whose range no format states, from their own darkest to their own brightest."""
    values = np.asarray(image, dtype=np.float64)
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    return Image.fromarray(np.round((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8)).convert("RGB")
