"""Names of classes, or of groups, that cannot be told apart by the eye."""

import unicodedata
from collections.abc import Iterable
from typing import Literal

from kth_lightning.errors import InputError

_SHOWN = 12  # code points of a name


def composed(name: str) -> str:
    """Return a name in the one of Unicode's forms in which letters and their accents are one (NFC)."""
    return unicodedata.normalize("NFC", name)


def look(name: str) -> str:
    """Return what names that look alike have in common: they differ in case, in spaces or in what is never shown."""
    seen = "".join(letter for letter in composed(name) if unicodedata.category(letter) != "Cf")
    seen = " ".join(seen.split())
    return seen if len(seen) == 1 else seen.lower()  # letters themselves may be the classes


def check_names(names: Iterable[str], flag: str, kind: Literal["classes", "groups"] = "classes") -> None:
    """Refuse names that look alike.

    Args:
        names: Each as it is written; the same one twice is fine.
        flag: What is to blame, for the sentence.
        kind: What they are names of.

    Raises:
        InputError: Two of them look alike and are not equal.
    """
    first: dict[str, str] = {}
    for name in sorted(set(names)):
        other = first.setdefault(look(name), name)
        if other != name:
            raise InputError(
                f"{flag}: the {kind} {other!r} ({_code_points(other, name)}) and {name!r} "
                f"({_code_points(name, other)}) look alike; give them one name, or names that differ to the eye"
            )


def _code_points(name: str, other: str) -> str:
    """Write out the code points of a name, from where it differs from another if it is long."""
    start = 0
    if len(name) > _SHOWN:
        start = next((at for at, (a, b) in enumerate(zip(name, other, strict=False)) if a != b), len(other))
        start = max(min(start, len(name) - _SHOWN), 0)
    points = " ".join(f"U+{ord(letter):04X}" for letter in name[start : start + _SHOWN])
    return ("… " if start else "") + points + (" …" if start + _SHOWN < len(name) else "")
