"""The reader of HEIC files, which is an extra."""

from collections.abc import Callable
from typing import IO

from PIL import ImageFile

NO_READER = "HEIC: its reader is not installed; run uv pip install '.[heic]' in the clone"


def heic_reader() -> Callable[[IO[bytes]], ImageFile.ImageFile] | None:
    """Return what opens a HEIC file, or None where it is not installed."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        return None
    reader: Callable[[IO[bytes]], ImageFile.ImageFile] = HeifImageFile
    return reader
