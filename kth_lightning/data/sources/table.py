"""A table that says which image shows what."""

import os
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from kth_lightning.data.box import read_box
from kth_lightning.data.class_names import composed
from kth_lightning.data.sources.source import SUBSETS, Candidate, Listing, Source
from kth_lightning.errors import InputError
from kth_lightning.io.tables import BadTable, read_table

_COLUMNS = ("path", "label", "split", "group", "mask", "box")
_MISSING = frozenset({"na", "nan", "n/a", "null", "none", "<na>", "#n/a"})
_PERHAPS_A_CLASS = "none"  # of camera traps: no animal
_ALIKE = 0.8  # of the letters, as difflib counts


class TableSource(Source):
    """Images and labels as a CSV or Parquet table names them.

    The columns `path` and `label` are needed. Where there are others, `split` says train, val or test for every image,
    images with the same text in `group` are never parted by a split or a fold, `mask` names the segmentation mask, and
    `box` says which part of the image is meant: x, y, width and height as shares of the upright image, "0.1 0.2 0.5
    0.4" or a list of a Parquet table. A path may stand in several rows, each with a box of its own.
    Paths start from the table's folder, or are absolute. A row whose file is missing stands in the audit. What R,
    pandas and spreadsheets write for a missing cell (NA, NaN, N/A, NULL, None, in any case) counts as an empty one.

    Args:
        table: The file.
    """

    def __init__(self, table: str) -> None:
        self.table = Path(table).expanduser().absolute()

    def list(self, cache_dir: Path) -> Listing:
        """Read the table; no image is looked for yet, and nothing is written to `cache_dir`.

        Raises:
            InputError: The table is missing, is none, lacks a column, or has a label that may mean none.
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
        remarks = [*_unused_columns(names, columns), *_without_missing(columns)]
        listing = Listing(self.table.parent, candidates=[], remarks=[f"{flag}: {remark}" for remark in remarks])
        for row, (path, label, split, group, mask, box) in enumerate(_rows(columns), start=2):
            if not path or not label:
                lack = "label" if path else "path"
                listing.problems.append((self._file(path or f"row {row}"), f"no {lack}: row {row} of the table"))
                continue
            if label.lower() == _PERHAPS_A_CLASS:
                raise InputError(
                    f"{flag}: the label of {path!r} (row {row}) is {label!r}, which may be a class or a label that is "
                    'missing; give the class another name, such as "no animal", or leave the cell empty'
                )
            if label.lower() in _MISSING:
                way = f"give the class another name if {label} is one"
                listing.problems.append((self._file(path), f"no label: {label!r} in row {row} of the table; {way}"))
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
            listing.candidates.append(
                Candidate(self._file(path), composed(label), masked, subset, composed(group), part)
            )
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


def _unused_columns(names: Sequence[str], columns: dict[str, list[str]]) -> Iterator[str]:
    """Name the columns that look like one that is known and is not there."""
    absent = [name for name in _COLUMNS if name not in columns]
    meant = {name: known for name in names if (known := _meant(name.lower(), absent))}
    if meant:
        known = ", ".join(dict.fromkeys(meant.values()))
        yield f"columns that are not used: {', '.join(meant)} (did you mean {known}?)"


def _meant(name: str, absent: Sequence[str]) -> str:
    words = re.findall("[a-z]+", name)
    starts = (known for known in absent if words and words[0].removesuffix("s").removesuffix("e") == known)
    return next(starts, "") or next(iter(get_close_matches(name.strip(), absent, 1, _ALIKE)), "")


def _without_missing(columns: dict[str, list[str]]) -> Iterator[str]:
    """Empty the cells that say that they are missing, and say how many these are."""
    for name in ("group", "mask", "box"):
        cells = columns.get(name, [])
        missing = [cell for cell in cells if cell.lower() in _MISSING]
        if missing:
            columns[name] = ["" if cell.lower() in _MISSING else cell for cell in cells]
            yield f"{len(missing)} of {len(cells)} cells of the column {name} say {missing[0]} and count as empty"
