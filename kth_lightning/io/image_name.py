"""What tells the images of a data set apart, where several may be boxes of one file."""

import hashlib


def image_name(path: str, box: str) -> str:
    """Name an image for people, and as a key within one table: its path, and its box where it has one."""
    return f"{path} [{box}]" if box else path


def image_content(sha256: str, box: str) -> str:
    """Return a hash of what an image shows, in hexadecimal: of its file's bytes, and of its box where it has one.

    Args:
        sha256: Of the file's bytes, in hexadecimal.
        box: As tables have it; empty for the whole image.
    """
    return hashlib.sha256(f"{sha256} {box}".encode()).hexdigest() if box else sha256


def content_key(digest: str) -> int:
    """Return the number that checkpoints and stores know a content by: the first 63 bits of its SHA-256."""
    return int(digest[:16], 16) >> 1
