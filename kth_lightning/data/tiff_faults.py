"""TIFF files that Pillow cannot read, or reads a part of without a word."""

from collections.abc import Mapping
from typing import IO, Any

from PIL import TiffImagePlugin

_SAMPLES, _BITS, _FORMAT, _PLANAR, _COMPRESSION = 277, 258, 339, 284, 259
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
        stream.seek(0)
        header = stream.read(8)
        if header[2] == _BIG:
            header += stream.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        stream.seek(tags.next)
        tags.load(stream)
        return tiff_fault(tags)
    except Exception:  # as in decoding
        return None


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)
