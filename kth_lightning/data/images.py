"""Image files of every kind, decoded to 8-bit RGB."""

import logging
import math
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, NamedTuple

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from kth_lightning.data.box import Box, Crop, FileOrCrop
from kth_lightning.data.deep_values import WHOLE_16_BITS, DeepValues, ValueRange, grey_values, read_deep
from kth_lightning.data.heic import NO_READER, heic_reader
from kth_lightning.data.tiff_faults import fault_of_stream, tiff_fault
from kth_lightning.io.image_kinds import HEAD, image_kind

MIN_SIDE = 16
"""Pixels that both sides of an image need."""

MAX_PIXELS = 178_956_970
"""Pixels that are decoded of one image, where no other limit is given: of 8-bit colours, 700 MB."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SAME_SIDES = (None, *(_TURNS[tag] for tag in (2, 3, 4)))
_MAX_BYTES = 2_000_000_000  # of 16-bit colours, more pixels than Pillow takes
_START_OF_SCAN, _END_OF_JPEG = b"\xff\xda", b"\xff\xd9"
_TAIL = 16  # zeros that no entropy-coded end of a JPEG file has

# Pillow warns about odd files; what matters is raised below. Filters set once are safe in threads, contexts are not.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


class UnreadableImage(Exception):
    """The reason why a file gives no image: a kind, ":", and the details, with what to do behind ";"."""


class UnknownRangeError(UnreadableImage):
    """Nothing says which values of an image deeper than 8 bits are black and white."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How image files become 8-bit RGB.

    Attributes:
        value_range: The values that become black and white in images deeper than 8 bits. None for 0 and 65535 in
            unsigned 16-bit images, whose formats say so; of others no range is known, and they cannot be read.
        max_pixels: The most pixels that are decoded of one image; JPEG files count at the reduced scale that they are
            decoded at.
        own_range: Whether each image's own lowest and highest value become black and white instead.
    """

    value_range: ValueRange | None = None
    max_pixels: int = MAX_PIXELS
    own_range: bool = False


DEFAULT_OPTIONS = ReadOptions()


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        image: RGB, upright, cut to its box.
        size: Full width and height of the file's image in upright pixels, also where it was decoded at a reduced scale.
        values: Lowest and highest value of an image deeper than 8 bits; None for any other.
        taken: When it was taken, as its EXIF tag DateTimeOriginal has it; empty where it has none.
    """

    image: Image.Image
    size: tuple[int, int]
    values: ValueRange | None
    taken: str


def read_rgb(file: FileOrCrop, at_least: int | None = None, options: ReadOptions = DEFAULT_OPTIONS) -> Image.Image:
    """Decode an image to RGB, upright as its EXIF tag says, transparency over white, deeper values scaled to 8 bits.

    Args:
        file: Of a format that `kth_lightning.io.image_kinds` knows, whatever its name; of an animation the first frame.
            Of a `Crop` the box is decoded.
        at_least: Let JPEG files decode at a reduced scale while both sides, of a box its own, stay at least twice this
            many pixels.
        options: How values are scaled, and how large an image may be.

    Raises:
        UnreadableImage: The file is missing, broken, too large, or its values have no known range.
    """
    path, box = file if isinstance(file, Crop) else (file, None)
    with open_image(path) as stream:
        return decode(stream, at_least, options, box).image


@contextmanager
def open_image(file: Path) -> Iterator[BufferedReader]:
    """Open a file that may be an image; a pipe or a device, whose end may never come, is none.

    Raises:
        UnreadableImage: The file is missing, no regular file, or cannot be read.
    """
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # opening a folder says so itself
            raise UnreadableImage("unreadable: not a regular file")
        with file.open("rb") as stream:
            yield stream
    except (OSError, ValueError) as error:  # ValueError of a name that no file can have
        raise UnreadableImage(f"unreadable: {getattr(error, 'strerror', None) or error}") from None


def decode(
    stream: IO[bytes],
    at_least: int | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
    box: Box | None = None,
) -> Decoded:
    """Decode as `read_rgb` does.

    Raises:
        UnreadableImage: The bytes are broken, the image is too large, its values have no known range, or the box is no
            part of it.
    """
    if box is not None and box.fault:
        raise UnreadableImage(box.fault)
    if stream.seek(0, os.SEEK_END) > _MAX_BYTES:
        raise UnreadableImage(f"too large: {stream.tell():,} bytes")
    stream.seek(0)
    kind = image_kind(stream.read(HEAD))
    if kind is None:
        raise UnreadableImage("unreadable: its bytes are in no image format known here")
    try:
        with _open(kind, stream) as image:
            size = image.size
            if at_least is not None:
                image.draft(None, _enough(image, 2 * at_least, box))
            _require_room(image, size, options.max_pixels)
            if isinstance(image, TiffImagePlugin.TiffImageFile) and (fault := tiff_fault(image.tag_v2)):
                raise UnreadableImage(fault)
            deep = read_deep(image, lambda: _open(kind, stream))
            image.load()
            if kind == "JPEG" and _ends_in_zeros(stream):
                raise UnreadableImage("truncated: the rest of the image is zeros")
            turn, taken = _turn(image), _taken(image)
            rgb = _scaled(deep, options) if deep else _over_white(image)
    except UnreadableImage:
        raise
    except Image.DecompressionBombError:
        raise UnreadableImage(f"too large: {size[0]}x{size[1]} pixels in {kind}; save it smaller") from None
    except Exception as error:  # Pillow's parsers raise whatever the broken bytes make them stumble over
        if kind == "TIFF" and (fault := fault_of_stream(stream)):
            raise UnreadableImage(fault) from None
        reason = "truncated" if "truncated" in str(error).lower() else "unreadable"
        raise UnreadableImage(f"{reason}: {' '.join(str(error).split()) or type(error).__name__}") from None
    upright = rgb if turn is None else rgb.transpose(turn)
    if box is not None:
        upright = upright.crop(box.pixels(upright.size))
    bounds = deep.bounds if deep else None
    return Decoded(upright, size if turn in _SAME_SIDES else (size[1], size[0]), bounds, taken)


def upright_rgb(image: Image.Image, options: ReadOptions = DEFAULT_OPTIONS) -> Image.Image:
    """Convert an image that is opened already, as `read_rgb` does; of 16-bit colours the high bytes are left.

    Raises:
        UnreadableImage: Its values have no known range.
    """
    deep = grey_values(image)
    rgb = _scaled(deep, options) if deep else _over_white(image)
    turn = _turn(image)
    return rgb if turn is None else rgb.transpose(turn)


def _open(kind: str, stream: IO[bytes]) -> ImageFile.ImageFile:
    # Not by Image.open, which counts pixels before a JPEG file is told to decode at a reduced scale.
    stream.seek(0)
    return _READERS[kind](stream)


def _open_heic(stream: IO[bytes]) -> ImageFile.ImageFile:
    if (reader := heic_reader()) is None:
        raise UnreadableImage(NO_READER)
    return reader(stream)


_READERS: dict[str, Callable[[IO[bytes]], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
    "HEIC": _open_heic,
}


def _enough(image: ImageFile.ImageFile, side: int, box: Box | None) -> tuple[int, int]:
    """Return the width and height of a file's image, as it lies, in which both sides of a box have so many pixels."""
    if box is None:
        return side, side
    width, height = math.ceil(side / box.width), math.ceil(side / box.height)
    return (width, height) if _turn(image) in _SAME_SIDES else (height, width)


def _require_room(image: ImageFile.ImageFile, size: tuple[int, int], most: int) -> None:
    pixels = image.width * image.height
    if image.info.get("progressive"):  # all its coefficients are held, mostly of half as many pixels in two channels
        pixels += size[0] * size[1] * 3 // 4
    if pixels > most:
        raise UnreadableImage(
            f"too large: {size[0]}x{size[1]} pixels; {pixels:,} would be in memory at once, and {most:,} may be; "
            "raise --data.max_pixels (of predict and explain: --max_pixels)"
        )


def _ends_in_zeros(stream: IO[bytes]) -> bool:
    """Tell whether a JPEG file, whose zeros decode to grey without complaint, was filled up with them."""
    stream.seek(-min(_TAIL, stream.seek(0, os.SEEK_END)), os.SEEK_END)
    if any(stream.read()):
        return False
    stream.seek(0)
    content = stream.read()
    return content.rfind(_END_OF_JPEG) < content.rfind(_START_OF_SCAN)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return what makes an image upright, by its EXIF tag."""
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken EXIF block leaves the pixels as good as they were
        return None


def _taken(image: Image.Image) -> str:
    """Return when an image was taken, as it says itself."""
    try:
        value = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal, "")
    except Exception:  # as in `_turn`
        return ""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text.replace("\0", "").strip()


def _over_white(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _scaled(deep: DeepValues, options: ReadOptions) -> Image.Image:
    value_range = options.value_range or (WHOLE_16_BITS if deep.full_scale else None)
    if options.own_range:
        value_range = deep.bounds
    if value_range is None:
        raise UnknownRangeError("unknown range: nothing says which values are black and white; give --value_range")
    return deep.rgb(value_range)
