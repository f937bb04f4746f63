"""CSV that survives a spreadsheet: cells are never formulas, and what a spreadsheet saves again is read."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

_SEPARATORS = ",;\t"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_APOSTROPHE = "'"


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Write rows, separated by commas, each ended by a line feed.

    A text that a spreadsheet would run as a formula (it begins with =, +, -, @, a tab or a carriage return) gets an
    apostrophe in front, and so does one that begins with an apostrophe; `csv_rows` takes it off again. Numbers are
    left as they are.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\r\n")  # so that a lone carriage return in a cell is quoted
    lines = []
    for row in rows:
        writer.writerow([_guarded(cell) if isinstance(cell, str) else cell for cell in row])
        lines.append(stream.getvalue().removesuffix("\r\n") + "\n")
        stream.seek(0)
        stream.truncate()
    return "".join(lines)


def without_empty(rows: Sequence[Sequence[object]], column: str) -> Sequence[Sequence[object]]:
    """Leave out a column in which no row has anything.

    Args:
        rows: The header and the rows below it.
        column: Its name, which the header has.
    """
    place = [*rows[0]].index(column)
    if any(row[place] for row in rows[1:]):
        return rows
    return [[*row[:place], *row[place + 1 :]] for row in rows]


def csv_rows(text: str, separator: str | None = None) -> list[list[str]]:
    """Read rows of text cells: what `csv_text` wrote, also after a spreadsheet has saved it.

    Args:
        text: With or without a byte order mark.
        separator: Between cells; the first of comma, semicolon and tab in the header where it is left out.

    Returns:
        The header and the rows below it; rows of empty cells alone are left out.

    Raises:
        csv.Error: The text is no CSV.
    """
    text = text.removeprefix("\ufeff")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator or separator_of(text), strict=True)
    return [[_bare(cell) for cell in row] for row in reader if any(row)]


def csv_records(text: str) -> list[dict[str, str]]:
    """Read rows as `csv_rows` does, each as a mapping from the names in the header to its cells.

    Raises:
        csv.Error: The text is no CSV.
        ValueError: A row has more or fewer cells than the header.
    """
    header, *rows = csv_rows(text) or [[]]
    return [dict(zip(header, row, strict=True)) for row in rows]


def read_csv(file: Path) -> list[dict[str, str]]:
    """Read a file of UTF-8 as `csv_records` does.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no UTF-8, or a row has more or fewer cells than the header.
        csv.Error: It is no CSV.
    """
    with file.open(encoding="utf-8", newline="") as stream:
        return csv_records(stream.read())


def separator_of(text: str) -> str:
    """Return the first comma, semicolon or tab outside quotes in the first line; a comma where there is none."""
    quoted = False
    for character in text:
        if character == '"':
            quoted = not quoted
        elif not quoted and character in "\r\n":
            break
        elif not quoted and character in _SEPARATORS:
            return character
    return ","


def _guarded(cell: str) -> str:
    return _APOSTROPHE + cell if cell.startswith((*_FORMULA, _APOSTROPHE)) else cell


def _bare(cell: str) -> str:
    return cell[1:] if cell.startswith(_APOSTROPHE) and cell[1:].startswith((*_FORMULA, _APOSTROPHE)) else cell
