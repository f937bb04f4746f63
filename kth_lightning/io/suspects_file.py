"""The table of suspect labels, suspects.csv: written by `compare`, marked by people, and given back as corrections."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from kth_lightning.errors import InputError
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.csv_text import csv_text, without_empty
from kth_lightning.io.image_name import image_content, image_name
from kth_lightning.io.tables import BadTable, read_table

TABLE, PAGE = "suspects.csv", "suspects.html"
DECISIONS = ("keep", "relabel", "drop")
"""What people write into the column `decision`; an empty cell decides nothing."""


class SuspectRow(NamedTuple):
    """An image of the table.

    Attributes:
        path: Of its file, as in the catalogue.
        label: As the source of the images has it.
        suggested: The class that it probably shows, or, where the decision is "relabel", the one that it gets.
        score: From 0, surely right, to 1, surely wrong; empty where no model was asked.
        decision: One of `DECISIONS`, or empty.
        sha256: Of the file's bytes, in hexadecimal.
        box: The part of the file that it is; empty for the whole.
    """

    path: str
    label: str
    suggested: str
    score: str
    decision: str
    sha256: str
    box: str = ""

    @property
    def name(self) -> str:
        """Return what tells it from the table's other images."""
        return image_name(self.path, self.box)

    @property
    def content(self) -> str:
        """Return a hash of what it shows."""
        return image_content(self.sha256, self.box)


_NEEDED = tuple(name for name in SuspectRow._fields if name not in ("score", "box"))


def write_suspects(rows: Iterable[SuspectRow], file: Path) -> None:
    """Write the table under a header of the fields' names, box where one has a box."""
    write_atomically(csv_text(without_empty([SuspectRow._fields, *rows], "box")), file)


def read_decisions(file: Path, name: str = "--data.corrections") -> list[SuspectRow]:
    """Read the rows of such a table in which something was decided, also after a spreadsheet has saved it.

    Args:
        file: CSV or Parquet.
        name: What to call it in a sentence, beside its path.

    Raises:
        InputError: The file is no such table, or a decision in it makes no sense.
    """
    flag = f"{name} {file}".lstrip()
    try:
        names, columns = read_table(file, SuspectRow._fields)
    except BadTable as error:
        raise InputError(f"{flag}: cannot be read as CSV or Parquet: {error}") from None
    except OSError as error:
        raise InputError(f"{flag}: cannot be read ({error.strerror or error}); check the path") from None
    if missing := [column for column in _NEEDED if column not in columns]:
        has = ", ".join(map(repr, names[:20]))
        raise InputError(f"{flag}: has no column {missing[0]!r}, only {has}; give the suspects.csv of a comparison")
    for column in ("score", "box"):
        columns.setdefault(column, [""] * len(columns["path"]))
    cells = zip(*(columns[column] for column in SuspectRow._fields), strict=True)
    rows = [row._replace(decision=row.decision.lower()) for row in map(SuspectRow._make, cells) if row.decision]
    for row in rows:
        if row.decision not in DECISIONS:
            raise InputError(
                f"{flag}: the decision on {row.name!r} is {row.decision!r}; write keep, relabel or drop, or nothing"
            )
        if row.decision == "relabel" and row.suggested in ("", row.label):
            raise InputError(
                f"{flag}: {row.name!r} is to be relabelled, and its column 'suggested' is {row.suggested!r}; write "
                "there what it shows, or keep as the decision"
            )
    twice = [name for name, number in Counter(row.name for row in rows).items() if number > 1]
    if twice:
        raise InputError(f"{flag}: {twice[0]!r} is decided on more than once; leave one row")
    return rows
