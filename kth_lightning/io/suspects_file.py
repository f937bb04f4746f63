"""The table of suspect labels, suspects.csv: written by `compare`, marked by people, and given back as corrections."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from kth_lightning.errors import InputError
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.csv_text import csv_text
from kth_lightning.io.tables import BadTable, read_table

TABLE, PAGE = "suspects.csv", "suspects.html"
DECISIONS = ("keep", "relabel", "drop")
"""What people write into the column `decision`; an empty cell decides nothing."""


class SuspectRow(NamedTuple):
    """An image of the table.

    Attributes:
        path: As in the catalogue.
        label: As the source of the images has it.
        suggested: The class that it probably shows, or, where the decision is "relabel", the one that it gets.
        score: From 0, surely right, to 1, surely wrong; empty where no model was asked.
        decision: One of `DECISIONS`, or empty.
        sha256: Of the file's bytes, in hexadecimal.
    """

    path: str
    label: str
    suggested: str
    score: str
    decision: str
    sha256: str


_NEEDED = tuple(name for name in SuspectRow._fields if name != "score")


def write_suspects(rows: Iterable[SuspectRow], file: Path) -> None:
    """Write the table under a header of the fields' names."""
    write_atomically(csv_text([SuspectRow._fields, *rows]), file)


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
    columns.setdefault("score", [""] * len(columns["path"]))
    cells = zip(*(columns[column] for column in SuspectRow._fields), strict=True)
    rows = [row._replace(decision=row.decision.lower()) for row in map(SuspectRow._make, cells) if row.decision]
    for row in rows:
        if row.decision not in DECISIONS:
            raise InputError(
                f"{flag}: the decision on {row.path!r} is {row.decision!r}; write keep, relabel or drop, or nothing"
            )
        if row.decision == "relabel" and row.suggested in ("", row.label):
            raise InputError(
                f"{flag}: {row.path!r} is to be relabelled, and its column 'suggested' is {row.suggested!r}; write "
                "there what it shows, or keep as the decision"
            )
    twice = [path for path, number in Counter(row.path for row in rows).items() if number > 1]
    if twice:
        raise InputError(f"{flag}: {twice[0]!r} is decided on more than once; leave one row")
    return rows
