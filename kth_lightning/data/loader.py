"""The loader: which images, in which view, in which order."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from kth_lightning.data.batch import PADDING, Batch
from kth_lightning.data.split import Part


@dataclass(eq=False)
class Loader:
    """Give every process its share of an epoch's batches, whose rows a store fetches later.

    The order is drawn from the seed and the epoch. All shares of a batch have the same length; missing rows have the
    label `PADDING`. An epoch's numbers are made at once and its batches are slices of them: of a step on stored
    features, torch's DataLoader takes more than the optimiser does.

    Attributes:
        index: int64 [N], places of the part's images in the catalogue.
        labels: int64 [M], of all images of the catalogue.
        part: What the images are for.
        batch_size: Images a step, over all processes together.
        views: SplitKeys in turns, an epoch each; None for another view in every epoch.
        seed: Of the order.
        shuffle: Whether there is another order in every epoch.
        rank: Of this process.
        world_size: Number of processes.
        epoch: The running one, from 0.
    """

    index: Tensor
    labels: Tensor
    part: Part
    batch_size: int
    views: list[int] | None
    seed: int
    shuffle: bool
    rank: int
    world_size: int
    epoch: int = field(default=0, init=False)

    batch_sampler: ClassVar = None  # Lightning looks for it where there is a sampler

    @property
    def sampler(self) -> "Loader":
        """Return what Lightning tells the epoch to."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch from the trainer."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.index) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        positions = torch.from_numpy(self._places())
        index = self.index[positions.clamp(min=0)]
        label = torch.where(positions >= 0, self.labels[index], PADDING)
        number = self.epoch + 1 if self.views is None else self.views[self.epoch % len(self.views)]
        share = -(-self.batch_size // self.world_size)
        view = torch.full_like(index, number)
        slices = zip(range(len(self)), index.split(share), view.split(share), label.split(share), strict=False)
        for step, some_index, some_view, some_label in slices:
            yield {
                "part": self.part,
                "index": some_index,
                "view": some_view,
                "label": some_label,
                "count": min(self.batch_size, len(self.index) - step * self.batch_size),
            }

    def _places(self) -> np.ndarray:
        """Return this process's share of each batch, one after the other, as places within the part, or -1."""
        order = np.arange(len(self.index))
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(len(order))
        full = len(order) // self.batch_size * self.batch_size
        return np.concatenate(
            [self._shares(order[:full].reshape(-1, self.batch_size)), self._shares(order[None, full:])]
        )

    def _shares(self, batches: np.ndarray) -> np.ndarray:
        mine = batches[:, self.rank :: self.world_size]
        missing = -(-batches.shape[1] // self.world_size) - mine.shape[1]
        return np.pad(mine, ((0, 0), (0, missing)), constant_values=-1).ravel()
