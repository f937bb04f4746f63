"""The samplers: which images come in which order, in which view, and which of them one process takes."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler


class Share(NamedTuple):
    """What one process takes of one batch.

    Attributes:
        positions: int64 [B], positions within the data set; -1 in the rows that fill the share up.
        view: The view in which all of them are seen.
        size: Number of images in the batch of all processes.
    """

    positions: Tensor
    view: int
    size: int


class EpochOrder(Sampler[int]):
    """The order of a data set's images in an epoch, drawn from the seed and the epoch alone.

    Args:
        number: Of images.
        shuffle: Whether every epoch has another order; else it is that of the data set.
        seed: Of the order.
    """

    def __init__(self, number: int, shuffle: bool, seed: int) -> None:
        self.number = number
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch, from 0; Lightning calls this before each, as for torch's `DistributedSampler`."""
        self.epoch = epoch

    def positions(self) -> np.ndarray:
        """Return the epoch's order, int64 [number]."""
        if self.shuffle:
            return np.random.default_rng((self.seed, self.epoch)).permutation(self.number)
        return np.arange(self.number)

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions().tolist())


class BatchShares(Sampler[list[Share]]):
    """This process's share of every batch of an epoch, as slices of positions that are drawn at once.

    A share is one item of the data set. All shares of a batch have the same length. Lightning must not put a sampler of
    its own in between, which would share images out a second time: `Trainer(use_distributed_sampler=False)`. It says so
    itself, since this is not a subclass of torch's `BatchSampler`.

    Args:
        sampler: The order; under this name Lightning finds what to tell the epoch to.
        batch_size: Images per step, over all processes together.
        views: Seen in turns, an epoch each; None for another view in every epoch.
        rank: Of this process.
        world_size: Number of processes.
    """

    def __init__(
        self, sampler: EpochOrder, batch_size: int, views: Sequence[int] | None, rank: int = 0, world_size: int = 1
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.views = views
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[list[Share]]:
        epoch, number = self.sampler.epoch, len(self.sampler)
        view = epoch + 1 if self.views is None else self.views[epoch % len(self.views)]
        order, full = self.sampler.positions(), number // self.batch_size * self.batch_size
        whole, rest = self._shares(order[:full].reshape(-1, self.batch_size)), self._shares(order[None, full:])
        for positions in whole.unbind():
            yield [Share(positions, view, self.batch_size)]
        if full < number:
            yield [Share(rest[0], view, number - full)]

    def _shares(self, batches: np.ndarray) -> Tensor:
        """Return this process's part of batches, int64 [S, B] from [S, size]."""
        mine = batches[:, self.rank :: self.world_size]
        missing = -(-batches.shape[1] // self.world_size) - mine.shape[1]
        return torch.from_numpy(np.pad(mine, ((0, 0), (0, missing)), constant_values=-1))
