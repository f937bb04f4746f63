"""Data sets of torchvision, or any other of torch, as sources of images."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset
from torchvision.datasets import DatasetFolder

from kth_lightning.data.catalogue import Subset
from kth_lightning.data.sources.source import Candidate, Listing, Source
from kth_lightning.data.sources.written import Item, folder_state, write_once
from kth_lightning.errors import InputError
from kth_lightning.io.class_path import class_path
from kth_lightning.io.progress import Progress

_FORMAT = "1"  # raise it when the same data set would give other files
_PROBES = 16


class TorchvisionSource(Source):
    """A data set whose items are (PIL image, label), such as those of torchvision, which lies on the disk.

    Where it is one of class folders, its files are listed. The images of any other are written once below the cache
    folder, without loss. They are written anew when the data set's `root` has other files; without a `root` all
    its items are read to find out.

    Args:
        dataset: All images or, where there are others, those for training. Its labels are class names, or places in
            its attribute `classes`.
        val: The images for validation, where they are prescribed.
        test: The images for testing, where they are prescribed.
    """

    def __init__(self, dataset: Dataset, val: Dataset | None = None, test: Dataset | None = None) -> None:
        self.dataset = dataset
        self.val = val
        self.test = test

    def list(self, cache_dir: Path) -> Listing:
        """List the images, after writing them below `cache_dir` the first time.

        Raises:
            InputError: The items are no pairs of a PIL image and a label, or differ every time.
        """
        first: Subset = "" if self.val is None and self.test is None else "train"
        given: list[tuple[Subset, Dataset | None]] = [(first, self.dataset), ("val", self.val), ("test", self.test)]
        listings = [_listing(dataset, subset, cache_dir) for subset, dataset in given if dataset is not None]
        return Listing(
            Path(os.path.commonpath([listing.root for listing in listings])),
            [candidate for listing in listings for candidate in listing.candidates],
            [problem for listing in listings for problem in listing.problems],
        )


def _listing(dataset: Any, subset: Subset, cache_dir: Path) -> Listing:
    if isinstance(dataset, DatasetFolder) and type(dataset).__getitem__ is DatasetFolder.__getitem__:
        candidates = [
            Candidate(Path(file).absolute(), dataset.classes[target], subset=subset) for file, target in dataset.samples
        ]
        return Listing(Path(dataset.root).absolute(), candidates)
    kind = class_path(dataset)
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise InputError(f"the data set {kind} cannot be read item by item: it has no length; give another")
    if len(dataset) and _content(dataset, 0) != _content(dataset, 0):
        raise InputError(f"the data set {kind} gives another image every time; leave its transform out")
    name = f"{kind.rpartition('.')[2].lower()}-{_key(dataset)}"
    return write_once(name, len(dataset), lambda number: _item(dataset, number), subset, cache_dir)


def _key(dataset: Any) -> str:
    """Name what a data set's images and labels depend on."""
    shown = re.sub(r"0x[0-9a-f]+", "", repr(dataset))  # places in memory
    digest = hashlib.sha256(f"{_FORMAT} {class_path(dataset)} {len(dataset)} {shown}".encode(errors="surrogateescape"))
    root = getattr(dataset, "root", None)
    numbers: Sequence[int] = range(len(dataset))
    if root and Path(root).is_dir():
        digest.update(folder_state(Path(root)))
        # The files are the same; these tell whether settings choose others of them, which `repr` may not show.
        numbers = numbers[:: max(len(numbers) // _PROBES, 1)]
    for number in Progress(numbers, "reading images", "data set"):
        digest.update(_content(dataset, number))
    return digest.hexdigest()[:16]


def _content(dataset: Any, number: int) -> bytes:
    image, label, problem = _item(dataset, number)
    if problem or not isinstance(image, Image.Image):
        return problem.encode()
    return f"{label} {image.mode} {image.size}".encode() + image.tobytes()


def _item(dataset: Any, number: int) -> Item:
    """Return an item with its class name.

    Raises:
        InputError: It is no pair of an image and a label.
    """
    try:
        item = dataset[number]
    except Exception as error:  # whatever a broken file makes the data set stumble over
        return Item(b"", "", f"unreadable: item {number}: {' '.join(str(error).split()) or type(error).__name__}")
    kind = f"item {number} of the data set {class_path(dataset)}"
    if not isinstance(item, tuple) or len(item) != 2 or not isinstance(item[0], Image.Image):
        inner = ", ".join(type(part).__name__ for part in item) if isinstance(item, tuple) else type(item).__name__
        raise InputError(f"{kind} is ({inner}), and not (PIL image, label); leave its transform out, or give another")
    image, label = item
    label = label.item() if hasattr(label, "item") else label
    if isinstance(label, str):
        return Item(image, label)
    if not isinstance(label, int):
        raise InputError(f"{kind} has the label {label!r:.100}, and not one class; choose another kind of target")
    classes = getattr(dataset, "classes", None)
    if not classes:
        return Item(image, str(label))
    if not 0 <= label < len(classes):
        raise InputError(f"{kind} has the label {label}, and the data set {len(classes)} classes; give another")
    name = classes[label]
    return Item(image, name if isinstance(name, str) else ", ".join(map(str, name)))
