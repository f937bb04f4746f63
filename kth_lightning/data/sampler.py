"""The samplers: which images come in which order, in which view, and which of them one process takes."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler


class Share(NamedTuple):
    """What one process takes of one batch.

    Attributes:
        rows: What the data set looked up for the epoch: the share's part of each tensor, [B, ...], by name.
        size: Number of images in the batch of all processes.
    """

    rows: dict[str, Tensor]
    size: int


LookUp = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""From positions within a data set, -1 for none, and views, int64 [N] each, to tensors [N, ...] by name."""


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

    def views(self, positions: np.ndarray, views: Sequence[int] | None) -> np.ndarray:
        """Return the view of every position of the epoch's order, int64 [number].

        Args:
            positions: As `positions` gives them.
            views: Seen in turns, an epoch each; None for another view in every epoch.
        """
        view = self.epoch + 1 if views is None else views[self.epoch % len(views)]
        return np.full(len(positions), view)

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions().tolist())


class BalancedOrder(EpochOrder):
    """An order in which every class is seen equally often, to one image, and an epoch is as long as without it.

    Of a class with more images than its share every epoch draws others; of one with fewer all come, none more than once
    more often than another of the class, and each time in another view. All is drawn from the seed and the epoch alone.

    Args:
        labels: Class of each image, int64 [number].
        seed: Of the order.
    """

    def __init__(self, labels: Tensor, seed: int) -> None:
        super().__init__(len(labels), True, seed)
        self.members = [np.flatnonzero(labels.numpy() == label) for label in labels.unique().tolist()]

    @property
    def most(self) -> int:
        """Return how often an image comes in an epoch at most."""
        return max(-(-self._share(one_more=True) // len(own)) for own in self.members)

    def positions(self) -> np.ndarray:
        """Return the epoch's order, int64 [number]."""
        rng = np.random.default_rng((self.seed, self.epoch))
        larger = rng.permutation(len(self.members)) < self.number % len(self.members)
        drawn = [
            np.resize(rng.permutation(own), self._share(bool(one_more)))
            for own, one_more in zip(self.members, larger, strict=True)
        ]
        return rng.permutation(np.concatenate(drawn))

    def views(self, positions: np.ndarray, views: Sequence[int] | None) -> np.ndarray:
        """Return the view of every position, another one where an image comes again.

        Args:
            positions: As `positions` gives them.
            views: Seen in turns; None for views that no other epoch has.
        """
        by_image = np.argsort(positions, kind="stable")
        ordered = positions[by_image]
        times = np.empty(len(positions), np.int64)
        times[by_image] = np.arange(len(positions)) - np.searchsorted(ordered, ordered)
        if views is None:
            return self.epoch * self.most + times + 1
        return np.asarray(views)[(self.epoch + times) % len(views)]

    def _share(self, one_more: bool) -> int:
        share, rest = divmod(self.number, len(self.members))
        return share + bool(one_more and rest)


class BatchShares(Sampler[list[Share]]):
    """This process's share of every batch of an epoch, all of which the data set looks up at once.

    A share is one item of the data set. All shares of a batch have the same length. Lightning must not put a sampler of
    its own in between, which would share images out a second time: `Trainer(use_distributed_sampler=False)`. It says so
    itself, since this is not a subclass of torch's `BatchSampler`.

    Args:
        sampler: The order; under this name Lightning finds what to tell the epoch to.
        batch_size: Images per step, over all processes together.
        views: Seen in turns, an epoch each; None for another view in every epoch.
        look_up: Of the data set.
        rank: Of this process.
        world_size: Number of processes.
    """

    def __init__(
        self,
        sampler: EpochOrder,
        batch_size: int,
        views: Sequence[int] | None,
        look_up: LookUp,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.views = views
        self.look_up = look_up
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[list[Share]]:
        order = self.sampler.positions()
        views = self.sampler.views(order, self.views)
        sizes = [min(self.batch_size, len(order) - start) for start in range(0, len(order), self.batch_size)]
        lengths = [-(-size // self.world_size) for size in sizes]
        looked_up = self.look_up(self._mine(order, -1), self._mine(views, views.max(initial=0)))
        names, columns = list(looked_up), [rows.split(lengths) for rows in looked_up.values()]
        for rows, size in zip(zip(*columns, strict=True), sizes, strict=True):
            yield [Share(dict(zip(names, rows, strict=True)), size)]

    def _mine(self, order: np.ndarray, fill: int) -> Tensor:
        """Return this process's part of every batch, one behind the other, each filled up to the others' length."""
        full = len(order) // self.batch_size * self.batch_size
        batches = (order[:full].reshape(-1, self.batch_size), order[None, full:])
        return torch.from_numpy(np.concatenate([self._share(rows, fill).ravel() for rows in batches]))

    def _share(self, batches: np.ndarray, fill: int) -> np.ndarray:
        mine = batches[:, self.rank :: self.world_size]
        missing = -(-batches.shape[1] // self.world_size) - mine.shape[1]
        return np.pad(mine, ((0, 0), (0, missing)), constant_values=fill)
