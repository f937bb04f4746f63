"""The table of a split, splits.csv: what each image was for, as it stands."""

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from kth_lightning.errors import InputError
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.csv_text import csv_text, read_csv, without_empty
from kth_lightning.io.image_name import image_content, image_name

PARTS = ("train", "val", "test", "unused")


class SplitRow(NamedTuple):
    """An image of the table.

    Attributes:
        path: Of its file.
        label: Class name.
        sha256: Of the file's bytes, in hexadecimal.
        part: One of `PARTS`.
        box: The part of the file that it is; empty for the whole.
    """

    path: str
    label: str
    sha256: str
    part: str
    box: str = ""

    @property
    def name(self) -> str:
        """Return what tells it from the table's other images."""
        return image_name(self.path, self.box)

    @property
    def content(self) -> str:
        """Return a hash of what it shows."""
        return image_content(self.sha256, self.box)


_NEEDED = SplitRow._fields[:-1]


def write_split(rows: Iterable[SplitRow], file: Path) -> None:
    """Write the table: path, label, sha256 and part of every image, and box where one has a box."""
    write_atomically(csv_text(without_empty([SplitRow._fields, *rows], "box")), file)


def read_split(file: Path, name: str = "--data.splits") -> list[SplitRow]:
    """Read what `write_split` wrote.

    Args:
        file: The table.
        name: What to call it in a sentence, beside its path.

    Raises:
        InputError: The file is no such table.
    """
    flag = f"{name} {file}".lstrip()
    try:
        rows = [SplitRow._make([*(row[name] for name in _NEEDED), row.get("box", "")]) for row in read_csv(file)]
        if not rows:
            raise ValueError("no row")
    except FileNotFoundError:
        raise InputError(f"{flag}: there is no such file; check the path") from None
    except (KeyError, ValueError, csv.Error, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{flag}: not a table of path, label, sha256, part ({reason}); give a run's splits.csv"
        ) from None
    twice = [name for name, number in Counter(row.name for row in rows).items() if number > 1]
    if twice:
        raise InputError(f"{flag}: {twice[0]!r} is listed more than once; give a run's splits.csv")
    wrong = sorted({row.part for row in rows} - set(PARTS))
    if wrong:
        raise InputError(f"{flag}: unknown part {wrong[0][:50]!r}; parts are train, val, test and unused")
    return rows


def split_hashes(rows: Iterable[SplitRow]) -> dict[str, str]:
    """Return hashes that tell whether two runs are about the same images, whatever their paths and order.

    Returns:
        "data" of the images and classes, "split" of these and of what each was for, "test" of the test images.
    """
    rows = list(rows)
    return {
        "data": _digest(f"{row.content} {row.label}" for row in rows),
        "split": _digest(f"{row.content} {row.label} {row.part}" for row in rows),
        "test": _digest(f"{row.content} {row.label}" for row in rows if row.part == "test"),
    }


def rows_digest(rows: Iterable[SplitRow]) -> str:
    """Return a hash of a table as it stands, paths and order included."""
    return hashlib.sha256("\n".join("\0".join(row) for row in rows).encode()).hexdigest()


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
