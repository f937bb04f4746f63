"""Rows of a store in the memory of an accelerator."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kth_lightning.stores.store import Store

_SHARE = 0.5
"""Of an accelerator's free memory, what rows may take; the rest is for the training step."""

_ROWS_AT_ONCE = 512


class ResidentRows:
    """All rows that a part of the split needs, copied to a device once: a batch of them is gathered there.

    Args:
        store: Of the rows.
        index: int64 [N], positions in the catalogue.
        views: In which the images are wanted.
        device: Where they are kept.

    Attributes:
        shape: Of a row.
    """

    def __init__(self, store: Store, index: Tensor, views: Sequence[int], device: torch.device) -> None:
        self.store = store
        self.shape = store.shape
        self.device = device
        self._places = torch.cat([store.places(index, torch.full_like(index, view)) for view in views]).unique()
        parts = self._places.split(_ROWS_AT_ONCE)  # the host need not hold what the device does
        first = store.at(parts[0]).to(device)
        self._rows = first.new_empty((len(self._places), *store.shape))
        for part, rows in zip(parts, self._rows.split(_ROWS_AT_ONCE), strict=True):
            rows.copy_(first if part is parts[0] else store.at(part))

    def places(self, index: Tensor, view: Tensor | None = None) -> Tensor:
        """Return what `at` takes for images int64 [B] in views int64 [B], the clean one where they are left out."""
        return torch.searchsorted(self._places, self.store.places(index, view))

    def at(self, places: Tensor) -> Tensor:
        """Gather rows on the device, [B, ...], from places int64 [B] there."""
        return self._rows.index_select(0, places)


def resident(store: Store, index: Tensor, views: Sequence[int], device: torch.device) -> Store | ResidentRows:
    """Copy rows to an accelerator where they take no more than half of its free memory.

    Args:
        store: Of the rows.
        index: int64 [N], positions in the catalogue.
        views: In which the images are wanted.
        device: Where a model is trained.

    Returns:
        The store itself for a CPU, which has the rows in memory or a memory map already, and where they are too many.
    """
    if device.type != "cuda" or not len(index):
        return store
    free, _ = torch.cuda.mem_get_info(device)
    size = store.fetch(index[:1], torch.tensor(views[:1])).nbytes
    return ResidentRows(store, index, views, device) if size * len(index) * len(views) <= _SHARE * free else store
