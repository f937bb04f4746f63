"""The feature store: what a frozen trunk makes of an image in a view, computed once and kept."""

import hashlib
import os
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

CHUNK = 256
"""Rows a file holds at most."""

_TABLE_BYTES = 2**26
"""Features of at most so many bytes are held in memory."""

_VERSION = "1"


class FeatureStore:
    """Keep rows of features by (image key, view key) in files of `CHUNK` rows.

    No split and no catalogue is part of a row's key: folds, reruns and grown data sets share rows. Each file is
    written under a temporary name by one process and renamed when whole; a damaged one is dropped with a warning and
    its rows count as missing. Rows are memory-mapped, or copied into memory where they are few bytes in all. The
    checksum of a file is looked at only where its time of change is not the one it was written with.

    Args:
        folder: Of one trunk on images of one size; made where it is missing.
        image_keys: int64 [N], of the catalogue's images.
        view_keys: For each view a number that stands for it across runs.
    """

    def __init__(self, folder: Path, image_keys: Tensor, view_keys: dict[int, int]) -> None:
        self.folder = folder
        self.image_keys = image_keys.numpy()
        self.view_keys = view_keys
        self._images, self._place = np.unique(self.image_keys, return_inverse=True)
        self._chunks: list[Tensor] = []
        self._table: Tensor | None = None
        self._rows = np.full((len(view_keys), len(self._images)), -1)
        self._view_row = np.zeros(max(view_keys) + 2, int)  # the view -1 finds the last
        self._view_row[list(view_keys)] = np.arange(len(view_keys))
        self._known: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)
        self.open()

    def open(self) -> None:
        """Find the rows that the files hold by now; a file that was read before is not read again."""
        for file in sorted(self.folder.glob("*.safetensors")):
            if file.name in self._known or (chunk := _read(file)) is None:
                continue
            self._known.add(file.name)
            positions = np.searchsorted(self._images, chunk["image"].numpy()).clip(max=len(self._images) - 1)
            known = self._images[positions] == chunk["image"].numpy()
            for rows, key in zip(self._rows, self.view_keys.values(), strict=True):
                mine = np.flatnonzero(known & (chunk["view"].numpy() == key))
                rows[positions[mine]] = len(self._chunks) * CHUNK + mine
            self._chunks.append(chunk["features"])
        self._table = _table(self._chunks)

    def missing(self, index: np.ndarray, views: list[int]) -> list[tuple[int, int]]:
        """List the (index, view) among images and views whose rows no file holds, each content once, view by view."""
        positions = np.unique(self._place[index], return_index=True)[1]
        return [
            (int(item), view)
            for view in views
            for item in index[np.sort(positions)]
            if self._rows[self._view_row[view], self._place[item]] < 0
        ]

    def write(self, index: Tensor, view: Tensor, features: Tensor) -> None:
        """Write at most `CHUNK` rows as one file.

        Args:
            index: int64 [B], places in the catalogue.
            view: int64 [B].
            features: [B, ...] on the CPU.
        """
        images = torch.from_numpy(self.image_keys[index.numpy()])
        views = torch.tensor([self.view_keys[int(item)] for item in view])
        name = hashlib.sha256(images.numpy().tobytes() + views.numpy().tobytes()).hexdigest()[:24]
        tensors = {"features": features.contiguous(), "image": images, "view": views}
        temporary = self.folder / f"{name}.part"
        written = int(time.time())  # whole seconds, as the coarsest file systems keep
        metadata = {"version": _VERSION, "crc32": _checksum(tensors), "written": str(written)}
        try:
            save_file(tensors, temporary, metadata=metadata)
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            os.utime(temporary, (written, written))
            temporary.replace(self.folder / f"{name}.safetensors")
        finally:
            temporary.unlink(missing_ok=True)

    def fetch(self, index: Tensor, view: Tensor) -> Tensor:
        """Copy rows out: int64 [B] and int64 [B] to features [B, ...]."""
        numbers = self._rows[self._view_row[view.numpy()], self._place[index.numpy()]]
        if self._table is not None:
            return self._table.index_select(0, torch.from_numpy(numbers))
        return torch.stack([self._chunks[number // CHUNK][number % CHUNK] for number in numbers.tolist()])


def _table(chunks: list[Tensor]) -> Tensor | None:
    """Copy chunks into one tensor, `CHUNK` rows for each, where that is small: gathering rows one by one takes long."""
    if not chunks or len(chunks) * CHUNK * chunks[0][0].nbytes > _TABLE_BYTES:
        return None
    table = chunks[0].new_empty(len(chunks) * CHUNK, *chunks[0].shape[1:])
    for start, chunk in zip(range(0, len(table), CHUNK), chunks, strict=True):
        table[start : start + len(chunk)] = chunk
    return table


def _read(file: Path) -> dict[str, Tensor] | None:
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
        tensors = load_file(file)
        untouched = file.stat().st_mtime_ns == int(metadata.get("written", -1)) * 10**9
        if metadata.get("version") == _VERSION and (untouched or metadata.get("crc32") == _checksum(tensors)):
            return tensors
    except (SafetensorError, OSError, KeyError, ValueError):
        pass
    warnings.warn(f"the feature store's file {file} is damaged and its features are computed again", stacklevel=2)
    file.unlink(missing_ok=True)
    return None


def _checksum(tensors: dict[str, Tensor]) -> str:
    crc = 0
    for name in ("features", "image", "view"):
        crc = zlib.crc32(tensors[name].flatten().view(torch.uint8).numpy().data, crc)
    return str(crc)
