"""TIFF files that Pillow cannot read, or reads a part of without a word."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import IO, Any

from PIL import TiffImagePlugin

_SAMPLES, _BITS, _FORMAT, _PLANAR, _COMPRESSION = 277, 258, 339, 284, 259
_NEW_SUBFILE, _OLD_SUBFILE = 254, 255
_REDUCED_OR_MASK, _OLD_REDUCED = 1 | 4, 2
_LOOKED_AT = 8  # directories, the first ones of which may be smaller copies of the first page
_SEPARATE = 2
_SIGNED, _FLOAT = 2, 3
_BIG = 43
_KINDS = {_SIGNED: "signed", _FLOAT: "floating-point"}
_WAY_OUT = "save it with 8 or 16 bits, as grey or RGB"


def tiff_fault(tags: Mapping[int, Any]) -> str | None:
    """Say why an image with these tags is not read: its kind, ":", details and what to do; None where it is."""
    bands = tags.get(_SAMPLES, 1)
    bits = _first(tags.get(_BITS, 1))
    kind = _first(tags.get(_FORMAT, 1))
    values = f"{bands} band{'s' if bands > 1 else ''} of {_KINDS.get(kind, 'unsigned')} values of {bits} bits"
    if bands > 4 or (bands == 2 and bits != 8):
        return f"multi-band TIFF: {values}; {_WAY_OUT}"
    if kind == _FLOAT and (bands > 1 or bits != 32):
        return f"floating-point TIFF: {values}; {_WAY_OUT}"
    if (kind == _SIGNED and (bands > 1 or bits == 8)) or (bands > 1 and bits > 16):
        return f"unsupported TIFF: {values}; {_WAY_OUT}"
    if tags.get(_PLANAR) == _SEPARATE and bands > 1 and bits == 16 and tags.get(_COMPRESSION, 1) != 1:
        # Of which Pillow gives the high bytes alone.
        return f"unsupported TIFF: {values}, each compressed by itself; {_WAY_OUT}, its bands interleaved"
    return None


def fault_of_stream(stream: IO[bytes]) -> str | None:
    """Say why a TIFF file that Pillow gave up is not read; None where it is damaged."""
    try:
        return tiff_fault(next(_directories(stream)))
    except Exception:  # as in decoding
        return None


def has_further_pages(stream: IO[bytes]) -> bool:
    """Tell whether a TIFF file has pages of which Pillow gives the first; smaller copies of it, and masks, are none."""
    try:
        return any(
            not _first(tags.get(_NEW_SUBFILE, 0)) & _REDUCED_OR_MASK
            and _first(tags.get(_OLD_SUBFILE, 0)) != _OLD_REDUCED
            for tags in islice(_directories(stream), 1, _LOOKED_AT)
        )
    except Exception:  # what is broken behind the first page is not read
        return False


def _directories(stream: IO[bytes]) -> Iterator[TiffImagePlugin.ImageFileDirectory_v2]:
    """Yield the tags of one page after the other."""
    stream.seek(0)
    header = stream.read(8)
    if header[2] == _BIG:
        header += stream.read(8)
    place = TiffImagePlugin.ImageFileDirectory_v2(header).next
    while place:
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        stream.seek(place)
        tags.load(stream)
        yield tags
        place = tags.next


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)
