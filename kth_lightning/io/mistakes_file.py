"""The tables of a run's most confident mistakes and of the training images near them."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.csv_text import csv_records, csv_text, without_empty
from kth_lightning.io.image_name import image_name
from kth_lightning.io.run_text import damaged, read_text


@dataclass(frozen=True)
class Mistake:
    """Describe a test image that got a wrong label.

    Attributes:
        path: As in the catalogue.
        label: True class.
        prediction: Class that was named.
        confidence: Probability of the prediction.
        image: Name of a JPEG inside the folder of mistakes.
        map: Name of another, the activation map of the prediction laid over the image.
        box: The part of the file that the image is; empty for the whole.
    """

    path: str
    label: str
    prediction: str
    confidence: float
    image: str
    map: str
    box: str = ""

    @property
    def name(self) -> str:
        """Return what tells the image from others: its path, and its box where it has one."""
        return image_name(self.path, self.box)


@dataclass(frozen=True)
class LookAlike:
    """Describe a training image that is near a mistake's image.

    Attributes:
        mistake: `Mistake.image` of that.
        path: As in the catalogue.
        label: Its class.
        distance: 1 less the cosine of the angle between the two images' vectors.
        image: Name of a JPEG inside the folder of mistakes.
        box: The part of the file that the image is; empty for the whole.
    """

    mistake: str
    path: str
    label: str
    distance: float
    image: str
    box: str = ""

    @property
    def name(self) -> str:
        """Return what tells the image from others: its path, and its box where it has one."""
        return image_name(self.path, self.box)


_Record = TypeVar("_Record", Mistake, LookAlike)


def write_records(items: Sequence[_Record], kind: type[_Record], file: Path) -> None:
    """Write one row a record, under the names of its fields; box where one has a box."""
    names: list[str] = [field.name for field in fields(kind)]
    rows: list[list[Any]] = [[getattr(item, name) for name in names] for item in items]
    write_atomically(csv_text(without_empty([names, *rows], "box")), file)


def read_records(file: Path, kind: type[_Record], number: str) -> list[_Record]:
    """Read what `write_records` wrote, whose cells are texts but for one number; none where there is no file.

    Raises:
        InputError: The file is damaged.
    """
    if not file.exists():
        return []
    try:
        return [kind(**row | {number: float(row[number])}) for row in csv_records(read_text(file))]  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise damaged(file, error) from None
