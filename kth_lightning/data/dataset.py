"""The data set of one part of the split: pixels, or what a trunk made of them, a whole batch at a time."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from kth_lightning.data.augmentation.augmentation import Augmentation
from kth_lightning.data.augmentation.presets import PresetAugmentation
from kth_lightning.data.batch import PADDING, Batch
from kth_lightning.data.sampler import Share
from kth_lightning.stores.resident import ResidentRows
from kth_lightning.stores.store import CLEAN, MIRRORED, Store


class _PartDataset(Dataset[Batch]):
    """Images of one part of the split.

    An item is a process's share of a batch: its rows are gathered at once, since work for each image would take longer
    than a step of a small head. What needs no images is looked up for a whole epoch.

    Args:
        rows: Of images, or of their features.
        index: int64 [N], positions of the part's images in the catalogue.
        labels: int64 [M], of all images of the catalogue.
    """

    def __init__(self, rows: Store | ResidentRows, index: Tensor, labels: Tensor) -> None:
        self.rows = rows
        self.index = index
        self.labels = labels

    def __len__(self) -> int:
        return len(self.index)

    def look_up(self, positions: Tensor, views: Tensor) -> dict[str, Tensor]:
        """Look up what an epoch needs to know of its images, on the device.

        Args:
            positions: int64 [N], within the part; -1 for rows that count nowhere.
            views: int64 [N].

        Returns:
            `index`, `view` and `label` as in `Batch`; `place`, where the rows lie; and what subclasses add.
        """
        index = self.index[positions.clamp(min=0)]
        looked_up = {
            "index": index,
            "view": views,
            "label": torch.where(positions < 0, PADDING, self.labels[index]),
            **self._look_up(index, views),
        }
        return {name: rows.to(self.rows.device) for name, rows in looked_up.items()}

    def _look_up(self, index: Tensor, views: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError


class PixelDataset(_PartDataset):
    """Images of one part of the split as a model takes them, before augmentation.

    Args:
        rows: Of pixels, uint8 [H, W, 3] each.
        index: int64 [N], positions of the part's images in the catalogue.
        labels: int64 [M], of all images of the catalogue.
        keys: int64 [M], of all images, for the augmentation to draw from.
        augmentation: Whose draws are made for a whole epoch where it can tell them apart from images.
    """

    def __init__(
        self,
        rows: Store | ResidentRows,
        index: Tensor,
        labels: Tensor,
        keys: Tensor,
        augmentation: Augmentation | None,
    ) -> None:
        super().__init__(rows, index, labels)
        self.keys = keys
        self.augmentation = augmentation

    def _look_up(self, index: Tensor, views: Tensor) -> dict[str, Tensor]:
        looked_up = {"place": self.rows.places(index)}
        if bool((views == CLEAN).all()):
            return looked_up
        keys = self.keys[index]
        if isinstance(self.augmentation, PresetAugmentation):
            height, width = self.rows.shape[:2]
            keys, views = keys.to(self.rows.device), views.to(self.rows.device)
            return looked_up | {"draws": self.augmentation.parameters(keys, views, height, width)}
        return looked_up | {"key": keys}

    def __getitem__(self, share: Share) -> Batch:
        """Return a process's share of a batch; `draws` or `key` tell that its images are yet to be augmented."""
        batch: Batch = {**share.rows, "count": share.size}
        batch["images"] = self.rows.at(batch.pop("place")).permute(0, 3, 1, 2)
        return batch


class FeatureDataset(_PartDataset):
    """What a frozen trunk made of the images of one part of the split.

    Args:
        rows: Of features.
        index: int64 [N], positions of the part's images in the catalogue.
        labels: int64 [M], of all images of the catalogue.
        mirrored: Whether those of the mirror images are wanted too.
    """

    def __init__(self, rows: Store | ResidentRows, index: Tensor, labels: Tensor, mirrored: bool) -> None:
        super().__init__(rows, index, labels)
        self.mirrored = mirrored

    def _look_up(self, index: Tensor, views: Tensor) -> dict[str, Tensor]:
        looked_up = {"place": self.rows.places(index, views)}
        if self.mirrored:
            looked_up["mirrored_place"] = self.rows.places(index, torch.full_like(index, MIRRORED))
        return looked_up

    def __getitem__(self, share: Share) -> Batch:
        """Return a process's share of a batch."""
        batch: Batch = {**share.rows, "count": share.size}
        batch["features"] = self.rows.at(batch.pop("place"))
        if self.mirrored:
            batch["mirrored"] = self.rows.at(batch.pop("mirrored_place"))
        return batch


def only(batches: list[Batch]) -> Batch:
    """Return the one item of a loader's step, which is a batch already, in place of torch's collation."""
    return batches[0]
