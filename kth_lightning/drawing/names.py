"""Class names and other texts as pictures show them, also where no font has their characters."""

import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from kth_lightning.drawing.fonts import missing
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.csv_text import csv_text
from kth_lightning.io.terminal import print_rank_zero

NUMBERS_FILE = "class_numbers.csv"
"""Name of the table that says which class a number in a picture stands for."""


def picture_names(class_names: Sequence[str]) -> list[str]:
    """Return class names as pictures show them: as they are, or "#3" where no font here can draw the class of index 3.

    Prints one warning where there are such classes. A name that is read from right to left is isolated, so that what a
    picture says behind it stays in its place.

    Args:
        class_names: All of them, in the order of the targets.
    """
    numbers = class_numbers(class_names)
    if numbers:
        _warn(tuple(numbers.values()))
    return [f"#{index}" if index in numbers else isolated(name) for index, name in enumerate(class_names)]


def class_numbers(class_names: Sequence[str]) -> dict[int, str]:
    """Return the classes that pictures show by their index, since no font here has all their characters."""
    unseen = _unseen("".join(class_names))  # of all at once: each search reads the fonts of the system
    return {index: name for index, name in enumerate(class_names) if unseen & set(name)}


def write_class_numbers(class_names: Sequence[str], folder: Path) -> None:
    """Write the table of the numbers that stand for classes beside the pictures, or remove it where there are none."""
    numbers, file = class_numbers(class_names), folder / NUMBERS_FILE
    if numbers:
        rows = [[f"#{index}", name] for index, name in numbers.items()]
        write_atomically(csv_text([["number", "class"], *rows]), file)
    else:
        file.unlink(missing_ok=True)


def drawable(text: str) -> str:
    """Return a text with escapes for the characters that no font here can draw."""
    unseen = _unseen(text)
    return "".join(_escape(character) if character in unseen else character for character in text)


def isolated(text: str) -> str:
    """Return a text that is read from right to left so that what stands beside it keeps its own direction."""
    reversed_ = any(unicodedata.bidirectional(character) in ("R", "AL") for character in text)
    return f"\u2068{text}\u2069" if reversed_ else text


def _unseen(text: str) -> set[str]:
    return {character for character in missing(text) if not _is_mark(character)}


def _is_mark(character: str) -> bool:
    """Tell whether a character has no shape of its own: marks of direction and joining, and variation selectors."""
    return unicodedata.category(character) == "Cf" or "VARIATION SELECTOR" in unicodedata.name(character, "")


def _escape(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode() if ord(character) > 127 else repr(character)[1:-1]


@cache
def _warn(names: Sequence[str]) -> None:
    some = f"the class {names[0]!r}" if len(names) == 1 else f"{len(names)} classes, such as {names[0]!r}"
    print_rank_zero(
        f"warning: no font on this machine has all characters of {some}; pictures show numbers instead, listed in "
        f"{NUMBERS_FILE} beside them; install a font that has them (for Chinese, Japanese and Korean: run uv "
        "pip install '.[fonts]' in the clone)"
    )
