"""The numbers that a loader hands out: which pictures, in which view, in which order."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from kth_lightning.data.batch import PADDING, Batch
from kth_lightning.data.split import Part


class Rows(Dataset):
    """Turn the places of a batch within a part into the batch's numbers; pictures are fetched later."""

    def __init__(self, index: Tensor, labels: Tensor, part: Part) -> None:
        self.index = index
        self.labels = labels
        self.part = part

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, drawn: tuple[np.ndarray, int, int]) -> Batch:
        places, view, count = drawn
        real = torch.from_numpy(places >= 0)
        index = self.index[torch.from_numpy(np.maximum(places, 0))]
        return {
            "part": self.part,
            "index": index,
            "view": torch.full_like(index, view),
            "label": torch.where(real, self.labels[index], PADDING),
            "count": count,
        }


class Order(Sampler[Any]):
    """Draw the order of an epoch from the seed and the epoch, and give every process its share of each batch.

    All shares of a batch have the same length; missing rows are the place -1.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        views: list[int] | None,
        seed: int,
        shuffle: bool,
        rank: int,
        world_size: int,
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.views = views
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch from the trainer."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, int, int]]:
        order = np.arange(self.length)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        view = self.epoch + 1 if self.views is None else self.views[self.epoch % len(self.views)]
        for start in range(0, self.length, self.batch_size):
            batch = order[start : start + self.batch_size]
            share = np.full(-(-len(batch) // self.world_size), -1)
            mine = batch[self.rank :: self.world_size]
            share[: len(mine)] = mine
            yield share, view, len(batch)
