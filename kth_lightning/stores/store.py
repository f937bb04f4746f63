"""The store: rows that are computed once for an image in a view, and kept."""

import hashlib
import os
import time
import uuid
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

CLEAN = 0
"""The view that is the image itself; those above are draws of an augmentation."""

MIRRORED = -1
"""The view that is the image's mirror image."""

_TABLE_BYTES = 2**26
"""Rows of at most so many bytes in all are held in memory."""

_VERSION = "2"


class Store:
    """Rows of one shape and dtype by (content key, view key), in files that are whole or not there.

    No split and no catalogue is part of a row's key: folds, reruns and grown data sets share rows. Each file is
    written under a temporary name by one process and renamed when whole; a damaged one is dropped with a warning and
    its rows count as missing. Rows are memory-mapped, or copied into memory where they are few bytes in all. The
    checksum of a file is looked at only where its time of change is not the one it was written with.

    Args:
        folder: Of all that a row's value depends on beside its image and view; made where it is missing.
        image_keys: int64 [N], one for the content of each of the catalogue's images.
        view_keys: For each view a number that stands for it across runs.

    Attributes:
        device: Where `at` has rows, the CPU.
    """

    device = torch.device("cpu")

    def __init__(self, folder: Path, image_keys: Tensor, view_keys: Mapping[int, int]) -> None:
        self.folder = folder
        self.image_keys = image_keys.numpy()
        self.view_keys = view_keys
        self._images, self._image_column = np.unique(self.image_keys, return_inverse=True)
        self._view_row = np.zeros(max(view_keys) + 2, int)  # the view -1 finds the last
        self._view_row[list(view_keys)] = np.arange(len(view_keys))
        # A row's number counts through all files; -1 stands for none.
        self._numbers = np.full((len(view_keys), len(self._images)), -1)
        self._files: list[Tensor] = []
        self._starts = np.zeros(1, int)  # the numbers of the files' first rows, and of the next file's
        self._known: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)
        self.open()

    def open(self) -> None:
        """Find the rows that the files hold by now; a file that was read before is not read again."""
        for file in sorted(self.folder.glob("*.safetensors")):
            if file.name in self._known or (content := _read(file)) is None:
                continue
            self._known.add(file.name)
            images, views = content["image"].numpy(), content["view"].numpy()
            columns = np.searchsorted(self._images, images).clip(max=len(self._images) - 1)
            wanted = self._images[columns] == images
            for numbers, key in zip(self._numbers, self.view_keys.values(), strict=True):
                mine = np.flatnonzero(wanted & (views == key))
                numbers[columns[mine]] = self._starts[-1] + mine
            self._files.append(content["rows"])
            self._starts = np.append(self._starts, self._starts[-1] + len(images))
        self._table = _table(self._files)
        self._bytes = [rows.flatten(1).view(torch.uint8).numpy() for rows in self._files]
        files = np.searchsorted(self._starts, self._numbers, side="right") - 1
        self._file = np.where(self._numbers < 0, len(self._files), files).ravel()
        self._place = (self._numbers - self._starts[files]).ravel()

    def missing(self, index: npt.NDArray[np.int64], views: list[int]) -> list[tuple[int, int]]:
        """List the (index, view) among images and views whose rows no file holds, each content once, view by view."""
        once = index[np.sort(np.unique(self._image_column[index], return_index=True)[1])]
        return [
            (int(item), view)
            for view in views
            for item in once[self._numbers[self._view_row[view], self._image_column[once]] < 0]
        ]

    def write(self, index: Tensor, view: Tensor, rows: Tensor) -> None:
        """Write rows as one file, which `open` finds.

        Args:
            index: int64 [B], positions in the catalogue.
            view: int64 [B].
            rows: [B, ...] on the CPU.

        Raises:
            OSError: The disk is full, or does not take it otherwise.
        """
        images = torch.from_numpy(self.image_keys[index.numpy()])
        views = torch.tensor([self.view_keys[int(item)] for item in view])
        name = hashlib.sha256(images.numpy().tobytes() + views.numpy().tobytes()).hexdigest()[:24]
        tensors = {"rows": rows.contiguous(), "image": images, "view": views}
        # Another run may compute the same rows at the same time, here or on another machine.
        temporary = self.folder / f"{name}.{uuid.uuid4().hex[:8]}.part"
        written = int(time.time())  # whole seconds, as the coarsest file systems keep
        metadata = {"version": _VERSION, "crc32": _checksum(tensors), "written": str(written)}
        try:
            with temporary.open("wb") as stream:  # the library's own writer does not say what the system said
                stream.write(save(tensors, metadata))
                stream.flush()
                os.fsync(stream.fileno())
            os.utime(temporary, (written, written))
            temporary.replace(self.folder / f"{name}.safetensors")
        finally:
            temporary.unlink(missing_ok=True)

    @property
    def shape(self) -> torch.Size:
        """Return the shape of a row."""
        return self._files[0].shape[1:]

    def places(self, index: Tensor, view: Tensor | None = None) -> Tensor:
        """Return where rows are, int64 [B], for `at`.

        Args:
            index: int64 [B], positions in the catalogue.
            view: int64 [B]; the clean one of all where it is left out.
        """
        row = self._view_row[CLEAN if view is None else view.numpy()]
        return torch.from_numpy(self._image_column[index.numpy()] + row * len(self._images))

    def at(self, places: Tensor) -> Tensor:
        """Copy rows out.

        Args:
            places: int64 [B], as `places` gives them.

        Returns:
            [B, ...] as they were written.

        Raises:
            IndexError: No file holds one of them.
        """
        cells = places.numpy()
        if self._table is not None:
            return self._table.index_select(0, torch.from_numpy(self._numbers.ravel()[cells]))
        found = zip(self._file[cells].tolist(), self._place[cells].tolist(), strict=True)
        rows = np.concatenate([self._bytes[file][place] for file, place in found])  # the fastest of six ways
        return torch.from_numpy(rows).view(self._files[0].dtype).view(len(cells), *self.shape)

    def fetch(self, index: Tensor, view: Tensor | None = None) -> Tensor:
        """Copy out the rows of images int64 [B] in views int64 [B], the clean one where they are left out."""
        return self.at(self.places(index, view))


def _table(files: list[Tensor]) -> Tensor | None:
    """Copy rows into one tensor where that is small: gathering them one by one takes long."""
    if not files or sum(rows.nbytes for rows in files) > _TABLE_BYTES:
        return None
    return torch.cat(files)


def _read(file: Path) -> dict[str, Tensor] | None:
    """Read a file, and delete one that is damaged; None then, and where another command has deleted it.

    Raises:
        OSError: It cannot be opened now, as on a disk of the network that is away.
    """
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
        tensors = load_file(file)
        untouched = file.stat().st_mtime_ns == int(metadata.get("written", -1)) * 10**9
        if metadata.get("version") == _VERSION and (untouched or metadata.get("crc32") == _checksum(tensors)):
            return tensors
    except FileNotFoundError:
        return None
    except RuntimeError as error:  # of torch, which opens the file a second time
        raise OSError(f"cannot open {file}: {error}") from None
    except (SafetensorError, KeyError, ValueError):
        pass
    warnings.warn(f"{file} of a store is damaged; its rows are computed again", stacklevel=2)
    file.unlink(missing_ok=True)
    return None


def _checksum(tensors: dict[str, Tensor]) -> str:
    crc = 0
    for name in ("rows", "image", "view"):
        crc = zlib.crc32(tensors[name].flatten().view(torch.uint8).numpy().data, crc)
    return str(crc)
