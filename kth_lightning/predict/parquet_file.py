"""Predictions as a Parquet table, made of the rows that were kept as JSON Lines."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from kth_lightning.errors import InputError

_ROWS = 10_000  # at once, which bounds the memory


def require_parquet() -> None:
    """Refuse to begin where the table could not be written at the end.

    Raises:
        InputError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise InputError(
            "--output: Parquet needs pyarrow, install it with: uv pip install pyarrow; or give a file that ends in "
            ".csv or .jsonl"
        ) from None


def write_parquet(lines: Path, columns: list[str], file: Path) -> None:
    """Write rows as Parquet: numbers as float64, a box and a set of classes as lists, and all else as text.

    Args:
        lines: JSON Lines of the rows.
        columns: Their names, in order.
        file: To write.
    """
    import pyarrow
    from pyarrow import parquet

    kinds = {
        "novelty": pyarrow.float64(),
        "box": pyarrow.list_(pyarrow.float64()),
        "set": pyarrow.list_(pyarrow.string()),
    }
    schema = pyarrow.schema(
        (name, pyarrow.float64() if name.startswith("probability") else kinds.get(name, pyarrow.string()))
        for name in columns
    )
    with parquet.ParquetWriter(file, schema) as writer, lines.open(encoding="utf-8") as stream:
        rows = _rows(stream)
        while some := list(islice(rows, _ROWS)):
            writer.write_table(pyarrow.Table.from_pylist(some, schema))


def _rows(stream: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in stream:
        yield json.loads(line)
