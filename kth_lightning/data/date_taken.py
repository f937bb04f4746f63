"""When an image was taken: from EXIF's text to one that sorts, and back to seconds."""

from datetime import datetime

_EXIF = "%Y:%m:%d %H:%M:%S"


def parse_taken(text: str) -> str:
    """Return EXIF's DateTimeOriginal as ISO 8601 has it; empty where it is no date, such as a camera's zeros."""
    try:
        return datetime.strptime(text[:19], _EXIF).isoformat()
    except ValueError:
        return ""


def seconds_between(earlier: str, later: str) -> float:
    """Return the seconds from one date to a later one, both as `parse_taken` writes them."""
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
