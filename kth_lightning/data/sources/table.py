"""A table that says which image shows what."""

import os
from collections.abc import Iterator
from pathlib import Path

from kth_lightning.data.box import read_box
from kth_lightning.data.class_names import composed
from kth_lightning.data.sources.source import SUBSETS, Candidate, Listing, Source
from kth_lightning.errors import InputError
from kth_lightning.io.tables import BadTable, read_table

_COLUMNS = ("path", "label", "split", "group", "mask", "box")


class TableSource(Source):
    """Images and labels as a CSV or Parquet table names them.

    The columns `path` and `label` are needed. Where there are others, `split` says train, val or test for every image,
    images with the same text in `group` are never parted by a split or a fold, `mask` names the segmentation mask, and
    `box` says which part of the image is meant: x, y, width and height as shares of the upright image, "0.1 0.2 0.5
    0.4" or a list of a Parquet table. A path may stand in several rows, each with a box of its own.
    Paths start from the table's folder, or are absolute. A row whose file is missing stands in the audit.

    Args:
        table: The file.
    """

    def __init__(self, table: str) -> None:
        self.table = Path(table).expanduser().absolute()

    def list(self, cache_dir: Path) -> Listing:
        """Read the table; no image is looked for yet, and nothing is written to `cache_dir`.

        Raises:
            InputError: The table is missing, is none, or lacks a column.
        """
        flag = f"--data.table {self.table}"
        try:
            names, columns = read_table(self.table, _COLUMNS)
        except BadTable as error:
            raise InputError(f"{flag}: cannot be read as CSV or Parquet: {error}") from None
        except OSError as error:
            raise InputError(f"{flag}: cannot be read ({error.strerror or error}); check the path") from None
        if missing := [name for name in ("path", "label") if name not in columns]:
            has = ", ".join(map(repr, names[:20]))
            raise InputError(f"{flag}: has no column {missing[0]!r}, only {has}; name the columns path and label")
        listing = Listing(self.table.parent, candidates=[])
        for row, (path, label, split, group, mask, box) in enumerate(_rows(columns), start=2):
            if not path or not label:
                lack = "label" if path else "path"
                listing.problems.append((self._file(path or f"row {row}"), f"no {lack}: row {row} of the table"))
                continue
            if "split" in columns and split.lower() not in SUBSETS:
                raise InputError(
                    f"{flag}: the split of {path!r} (row {row}) is {split!r}; write train, val or test in every row, "
                    "or leave the column out"
                )
            subset, masked = SUBSETS.get(split.lower(), ""), self._file(mask) if mask else None
            try:
                part = read_box(box) if box else None
            except ValueError as error:
                listing.problems.append((self._file(path), str(error)))
                continue
            listing.candidates.append(Candidate(self._file(path), composed(label), masked, subset, group, part))
        return listing

    def _file(self, path: str) -> Path:
        # os.path, since pathlib takes seconds to join a hundred thousand paths.
        file = os.path.join(self.table.parent, path)  # noqa: PTH118
        if "\\" in path and not os.path.exists(file):  # noqa: PTH110  # written on Windows
            file = os.path.join(self.table.parent, path.replace("\\", "/"))  # noqa: PTH118
        return Path(os.path.normpath(file))


def _rows(columns: dict[str, list[str]]) -> Iterator[tuple[str, ...]]:
    empty = [""] * len(columns["path"])
    return zip(*(columns.get(name, empty) for name in _COLUMNS), strict=True)
