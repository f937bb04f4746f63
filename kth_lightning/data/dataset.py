"""The data set of one part of the split: pixels, or what a trunk made of them, a whole batch at a time."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from kth_lightning.data.batch import PADDING, Batch
from kth_lightning.data.sampler import Share
from kth_lightning.stores.store import CLEAN, MIRRORED, Store


class _PartDataset(Dataset[Batch]):
    """Images of one part of the split.

    An item is a process's share of a batch: its rows are fetched from a store at once, since work for each image would
    take longer than a step of a small head.

    Args:
        store: The rows.
        index: int64 [N], positions of the part's images in the catalogue.
        labels: int64 [M], of all images of the catalogue.
    """

    def __init__(self, store: Store, index: Tensor, labels: Tensor) -> None:
        self.store = store
        self.index = index
        self.labels = labels

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, share: Share) -> Batch:
        """Return a process's share of a batch."""
        index = self.index[share.positions.clamp(min=0)]
        return {
            "index": index,
            "view": share.views,
            "label": torch.where(share.positions < 0, PADDING, self.labels[index]),
            "count": share.size,
        }


class PixelDataset(_PartDataset):
    """Images of one part of the split as a model takes them, before augmentation.

    Args:
        store: Of pixels, uint8 [H, W, 3] a row.
        index: int64 [N], positions of the part's images in the catalogue.
        labels: int64 [M], of all images of the catalogue.
        keys: int64 [M], of all images, for the augmentation to draw from.
    """

    def __init__(self, store: Store, index: Tensor, labels: Tensor, keys: Tensor) -> None:
        super().__init__(store, index, labels)
        self.keys = keys

    def __getitem__(self, share: Share) -> Batch:
        """Return a process's share of a batch; `key` tells that its images are yet to be augmented."""
        batch = super().__getitem__(share)
        batch["images"] = self.store.fetch(batch["index"]).permute(0, 3, 1, 2)
        if (share.views != CLEAN).any():
            batch["key"] = self.keys[batch["index"]]
        return batch


class FeatureDataset(_PartDataset):
    """What a frozen trunk made of the images of one part of the split.

    Args:
        store: Of features.
        index: int64 [N], positions of the part's images in the catalogue.
        labels: int64 [M], of all images of the catalogue.
        mirrored: Whether those of the mirror images are wanted too.
    """

    def __init__(self, store: Store, index: Tensor, labels: Tensor, mirrored: bool) -> None:
        super().__init__(store, index, labels)
        self.mirrored = mirrored

    def __getitem__(self, share: Share) -> Batch:
        """Return a process's share of a batch."""
        batch = super().__getitem__(share)
        batch["features"] = self.store.fetch(batch["index"], batch["view"])
        if self.mirrored:
            batch["mirrored"] = self.store.fetch(batch["index"], torch.full_like(batch["view"], MIRRORED))
        return batch


def only(batches: list[Batch]) -> Batch:
    """Return the one item of a loader's step, which is a batch already, in place of torch's collation."""
    return batches[0]
