"""Tables of text that others wrote, column by column: CSV or Parquet."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kth_lightning.io.csv_text import csv_rows

_PARQUET = b"PAR1"
_JOINED = ("box",)  # columns of which lists become one text


class BadTable(Exception):
    """Say in half a sentence why a file is no table, such as "it is no text in UTF-8"."""


def read_table(file: Path, wanted: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Read columns of a table as text; an empty cell is "".

    Spaces around cells and names are dropped, and case does not matter in a column's name. Of Parquet, a list in the
    column box becomes text with spaces between its entries; a list elsewhere has to have one entry, or none.

    Args:
        file: CSV (as `csv_rows` reads it, in UTF-8) or Parquet, which its first bytes tell.
        wanted: Columns to read, in lower case.

    Returns:
        The names of all columns, and the cells of the wanted ones that are there, in the file's order.

    Raises:
        BadTable: The file is no such table, or has several entries in one cell.
        OSError: It cannot be read.
    """
    with file.open("rb") as stream:
        is_parquet = stream.read(len(_PARQUET)) == _PARQUET
    return _read_parquet(file, wanted) if is_parquet else _read_csv(file, wanted)


def _read_csv(file: Path, wanted: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    try:
        rows = csv_rows(file.read_bytes().decode())
    except UnicodeDecodeError:
        raise BadTable('it is not UTF-8 text; save it as "CSV UTF-8"') from None
    except csv.Error as error:
        raise BadTable(str(error)) from None
    if not rows:
        raise BadTable("it is empty")
    names = rows.pop(0)
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names):
            raise BadTable(f"row {number} has {len(row)} cells and the header {len(names)}")
    places = {key: names.index(name) for key, name in _chosen(names, wanted).items()}
    return names, {key: [row[place].strip() for row in rows] for key, place in places.items()}


def _read_parquet(file: Path, wanted: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    try:
        import pyarrow
        from pyarrow import compute, parquet
    except ImportError:
        raise BadTable(
            "Parquet needs pyarrow, install it with: uv pip install pyarrow; or save the table as CSV"
        ) from None
    try:
        names = parquet.read_schema(file).names
        chosen = _chosen(names, wanted)
        table = parquet.read_table(file, columns=list(chosen.values()))
        texts = {key: _texts(key, table[name]) for key, name in chosen.items()}
        columns = {key: compute.utf8_trim_whitespace(column.cast(pyarrow.string())) for key, column in texts.items()}
        return names, {key: column.fill_null("").to_pylist() for key, column in columns.items()}
    except pyarrow.ArrowException as error:
        raise BadTable(" ".join(str(error).split())[:200]) from None


def _texts(key: str, column: Any) -> Any:
    """Write lists of a column of pyarrow's as texts."""
    import pyarrow
    from pyarrow import types

    if not any(is_list(column.type) for is_list in (types.is_list, types.is_large_list, types.is_fixed_size_list)):
        return column
    rows = [row or [] for row in column.to_pylist()]
    for number, row in enumerate(rows, start=2):
        if len(row) > 1 and key not in _JOINED:
            raise BadTable(f"row {number} has {len(row)} entries in the column {key!r}; give each row one")
    return pyarrow.array([" ".join("" if entry is None else str(entry) for entry in row) for row in rows])


def _chosen(names: Sequence[str], wanted: Sequence[str]) -> dict[str, str]:
    """Return the wanted columns that are there, with their names as they are written."""
    keys = [name.strip().lower() for name in names]
    counts = Counter(keys)
    if twice := [key for key in wanted if counts[key] > 1]:
        raise BadTable(f"it has two columns {twice[0]!r}")
    return {key: name for key, name in zip(keys, names, strict=True) if key in wanted}
