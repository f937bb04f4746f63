"""Which files are images: told by their first bytes, and by their names where that is enough."""

import re
import stat
from pathlib import Path

HEAD = 64
"""Bytes that tell an image's format."""

IMAGE_SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif",
        ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm",
    }
)  # fmt: skip
"""Names that promise an image, in lower case; a file of another name may be one all the same."""

_CAMERA_RAW = frozenset(
    {
        ".3fr", ".arw", ".cr2", ".cr3", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef",
        ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
    }
)  # fmt: skip

_MAGICS = (
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", rb"\x89PNG\r\n\x1a\n"),
    ("WEBP", rb"RIFF....WEBP"),
    ("TIFF", rb"II[*+]\0(?!.{4}CR)|MM\0[*+]"),  # behind CR are a camera's raw data
    ("GIF", rb"GIF8[79]a"),
    ("BMP", rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
    ("JPEG2000", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
    ("PPM", rb"P[1-6]\s+[#\d]"),
)
_BRANDS = {
    "AVIF": frozenset({b"avif", b"avis"}),
    "HEIC": frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}),
}


def image_kind(head: bytes) -> str | None:
    """Name the image format that a file's first `HEAD` bytes are of; None for any other file."""
    for kind, pattern in _MAGICS:
        if re.match(pattern, head, re.DOTALL):
            return kind
    if head[4:8] == b"ftyp":
        box = head[: int.from_bytes(head[:4], "big")]
        brands = {box[8:12], *(box[at : at + 4] for at in range(16, len(box), 4))}
        return next((kind for kind, known in _BRANDS.items() if brands & known), None)
    return None


def is_image_name(name: str | Path) -> bool:
    """Tell whether a file's name promises an image."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def is_raw_name(name: str | Path) -> bool:
    """Tell whether a file's name promises a camera's raw data, whose first bytes are often those of a TIFF file."""
    return Path(name).suffix.lower() in _CAMERA_RAW


def is_image(file: Path) -> bool:
    """Tell whether a file is an image by its name or, where that promises none, by its first bytes."""
    if is_image_name(file):
        return True
    try:
        if is_raw_name(file) or not stat.S_ISREG(file.stat().st_mode):  # the end of a pipe may never come
            return False
        with file.open("rb") as stream:
            return image_kind(stream.read(HEAD)) is not None
    except (OSError, ValueError):
        return False
