"""The catalogue: one row for every usable image of a data set."""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kth_lightning.data.box import Box, Crop, FileOrCrop, read_box
from kth_lightning.data.deep_values import ValueRange
from kth_lightning.data.images import DEFAULT_OPTIONS, ReadOptions
from kth_lightning.errors import InputError
from kth_lightning.io.csv_text import csv_text, read_csv, without_empty
from kth_lightning.io.image_name import content_key, image_content, image_name

_SHA256 = re.compile("[0-9a-f]{64}")

Subset = Literal["", "train", "val", "test"]

MaskBackground = Literal["zero", "highest"]
"""Which value of a mask is all but the objects: 0, or the highest, as in KTH-ANIMALS."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """Describe one usable image.

    Attributes:
        path: Of its file, relative to the catalogue's root with "/" between parts; absolute outside the root.
        label: Class name as people see it.
        mask: Path of the segmentation mask, written like `path`; empty where there is none.
        width: Pixels, after the EXIF rotation; of the box where there is one.
        height: Pixels, after the EXIF rotation; of the box where there is one.
        sha256: Of the file's bytes, in hexadecimal.
        duplicates: Images with the same number are duplicates or near duplicates of each other.
        subset: The part that the source prescribes; empty where the split is free.
        group: Name of what the source says that it belongs to, such as a patient; empty where it says nothing.
        low: Lowest value of an image deeper than 8 bits; None for any other.
        high: Highest value of such an image.
        taken: When it was taken, as `date_taken.parse_taken` writes it; empty where its EXIF data do not say.
        box: The part of the file that it is; None for the whole.
    """

    path: str
    label: str
    mask: str
    width: int
    height: int
    sha256: str
    duplicates: int
    subset: Subset = ""
    group: str = ""
    low: float | None = None
    high: float | None = None
    taken: str = ""
    box: Box | None = None

    @property
    def box_text(self) -> str:
        """Return the box as tables have it; empty for the whole image."""
        return "" if self.box is None else str(self.box)

    @property
    def name(self) -> str:
        """Return what tells it from the catalogue's other images: its path, and its box where it has one."""
        return image_name(self.path, self.box_text)

    @property
    def content(self) -> str:
        """Return a hash of what it shows: of its file's bytes, and of its box where it has one."""
        return image_content(self.sha256, self.box_text)


@dataclass(frozen=True)
class Catalogue:
    """Hold the usable images of a data set, in the order of their paths and boxes.

    Attributes:
        root: Folder that relative paths start from.
        images: One entry an image.
        located: Where the file lies, written like `path`, of each image that lies elsewhere than its path says.
        options: How their files are to be read, as it was asked for.
        own_range: Whether the images decide the range of values of those deeper than 8 bits, where none was asked for.
        mask_background: What the masks have where there is no object.
    """

    root: Path
    images: tuple[ImageRecord, ...]
    located: Mapping[str, str] = field(default_factory=dict)
    options: ReadOptions = DEFAULT_OPTIONS
    own_range: bool = True
    mask_background: MaskBackground = "zero"

    @property
    def class_names(self) -> list[str]:
        """List the class names in alphabetical order; an image's target is its class's place here."""
        return sorted({image.label for image in self.images})

    def groups(self, index: Iterable[int]) -> list[str]:
        """Return the names of the groups of images at these positions, empty where an image has none."""
        return [self.images[position].group for position in index]

    @cached_property
    def content_keys(self) -> NDArray[np.int64]:
        """Return a number for every image that depends on its content alone, int64 [N]."""
        return np.array([content_key(image.content) for image in self.images], dtype=np.int64)

    @cached_property
    def inseparable(self) -> NDArray[np.int32]:
        """Number the images such that those with one number must not be parted by a split, int32 [N].

        They are duplicates, boxes of one file or of copies of it, or have the same group, or others tie them: where a
        duplicate stands in two groups, both are one.
        """
        count = len(self.images)
        # A graph in which every image is joined to what stands for its duplicates, for its group, and for its file.
        edges: list[tuple[int, int | str | tuple[str]]] = [
            (image, item.duplicates) for image, item in enumerate(self.images)
        ]
        edges += [(image, item.group) for image, item in enumerate(self.images) if item.group]
        if any(item.box for item in self.images):
            edges += [(image, (item.sha256,)) for image, item in enumerate(self.images)]
        nodes: dict[int | str | tuple[str], int] = {}
        ends = [(image, nodes.setdefault(node, count + len(nodes))) for image, node in edges]
        size = count + len(nodes)
        graph = coo_array((np.ones(len(ends), dtype=bool), np.array(ends).reshape(-1, 2).T), shape=(size, size))
        return connected_components(graph, directed=False)[1][:count]

    @cached_property
    def read_options(self) -> ReadOptions:
        """Return how the files are read; a range of values that was not asked for is that of all images, if any."""
        own = _range_of(self.images) if self.own_range else None
        return replace(self.options, value_range=self.options.value_range or own)

    def file(self, index: int) -> Path:
        """Return the path of an image's file."""
        path = self.images[index].path
        return self.root / self.located.get(path, path)

    def pixels(self, index: int) -> FileOrCrop:
        """Return what `read_rgb` reads an image from: its file, or a box of that."""
        file, box = self.file(index), self.images[index].box
        return file if box is None else Crop(file, box)

    def mask_file(self, index: int) -> Path | None:
        """Return the path of an image's mask, or None where it has none."""
        mask = self.images[index].mask
        return self.root / mask if mask else None


def write_catalogue(images: Iterable[ImageRecord], file: Path) -> None:
    """Write images as CSV, one row each under a header of the field names; the column box where one has a box."""
    names = [field.name for field in fields(ImageRecord)]
    rows = ([getattr(image, "box_text" if name == "box" else name) for name in names] for image in images)
    file.write_text(csv_text(without_empty([names, *rows], "box")), encoding="utf-8", newline="")


def read_catalogue(file: Path, root: Path, options: ReadOptions = DEFAULT_OPTIONS) -> Catalogue:
    """Read what `write_catalogue` wrote.

    Args:
        file: The table.
        root: Folder that its paths start from.
        options: How the images are to be read.

    Raises:
        InputError: The file is not such a table.
    """
    try:
        images = tuple(map(_image, read_csv(file)))
        if not images:
            raise ValueError("no row")
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{file} is not a catalogue ({reason}); delete the folder {file.parent} and run the command again"
        ) from None
    return Catalogue(root, images, options=options)


def _range_of(images: Iterable[ImageRecord]) -> ValueRange | None:
    """Return the lowest and the highest value of the images deeper than 8 bits; None where there are none."""
    deep = [(image.low, image.high) for image in images if image.low is not None and image.high is not None]
    if not deep:
        return None
    low, high = min(low for low, _ in deep), max(high for _, high in deep)
    return low, high if high > low else low + 1


def _image(row: dict[str, str]) -> ImageRecord:
    if not row["path"] or not row["label"] or not _SHA256.fullmatch(row["sha256"]):
        raise ValueError(f"path {row['path']!r}, label {row['label']!r}, sha256 {row['sha256']!r}")
    if row["subset"] not in get_args(Subset):
        raise ValueError(f"subset {row['subset']!r}")
    return ImageRecord(
        path=row["path"],
        label=row["label"],
        mask=row["mask"],
        width=int(row["width"]),
        height=int(row["height"]),
        sha256=row["sha256"],
        duplicates=int(row["duplicates"]),
        subset=row["subset"],  # type: ignore[arg-type]
        group=row["group"],
        low=float(row["low"]) if row["low"] else None,
        high=float(row["high"]) if row["high"] else None,
        taken=row["taken"],
        box=read_box(row["box"]) if row.get("box") else None,
    )
