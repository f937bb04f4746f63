"""Permutation tests of two sets of images that come in groups: whole groups are dealt to the two sets at random."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array

from kth_lightning.evaluation.clusters import cluster_numbers

DRAWS = 1999
_MOST_BINS = 1000  # of values: between so many quantiles no distance of two distributions hides
_AT_ONCE = 2_000_000  # numbers of all draws that are held
_EQUAL = 1e-9

_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GroupsDealt:
    """Hold two sets of images by their groups; an image without a group is one of its own.

    Were both sets from the same places, any other division of the places would be as likely as that which was found.
    Each set keeps its number of groups. The draws have a fixed seed.

    Attributes:
        clusters: Number of each image's group, those of the first set first, int64 [N + M].
        first: Number of groups in the first set.
    """

    clusters: npt.NDArray[np.int64]
    first: int

    @classmethod
    def of(cls, then: Sequence[str], now: Sequence[str]) -> "GroupsDealt | None":
        """Number the groups of two sets, names for N and M images; None where no image has a group."""
        if not any(then) and not any(now):
            return None
        ones, others = (_numbers(names) for names in (then, now))
        first = int(ones.max()) + 1
        return cls(np.concatenate([ones, others + first]), first)

    def distribution_p(self, values: npt.NDArray[np.float64]) -> float:
        """Return the p of the Kolmogorov-Smirnov statistic of values [N + M], at up to 1000 quantiles of all."""
        edges = np.unique(values)
        if len(edges) > _MOST_BINS:
            edges = np.unique(np.quantile(values, np.linspace(0, 1, _MOST_BINS + 1)[1:], method="inverted_cdf"))
        return self._p(np.searchsorted(edges, values), _kolmogorov_smirnov)

    def class_mix_p(self, classes: npt.NDArray[np.int64]) -> float:
        """Return the p of chi-squared of the classes [N + M], as indices, in the two sets."""
        return self._p(np.unique(classes, return_inverse=True)[1], _chi_squared)

    def _p(self, bins: npt.NDArray[np.int64], statistic: Callable[[_Array, _Array], _Array]) -> float:
        """Return how often draws come as far as what was found.

        Args:
            bins: Each image's bin, int64 [N + M]; no bin is empty.
            statistic: From the images in each bin, in the first set [draws, B] and in both sets [B].
        """
        shape = int(bins.max()) + 1, int(self.clusters.max()) + 1
        counts = coo_array((np.ones(len(bins)), (bins, self.clusters)), shape=shape).tocsr()
        totals = np.bincount(bins).astype(np.float64)

        def far(is_first: npt.NDArray[np.bool_]) -> _Array:
            return statistic((counts @ is_first.T.astype(np.float64)).T, totals)

        found = far(np.arange(shape[1])[None] < self.first)[0]
        draws = _draws(shape[1], self.first, max(1, _AT_ONCE // max(shape)))
        as_far = sum(int((far(drawn) >= found - _EQUAL * max(found, 1.0)).sum()) for drawn in draws)
        return (1 + as_far) / (1 + DRAWS)


def _kolmogorov_smirnov(firsts: _Array, totals: _Array) -> _Array:
    below, all_below = firsts.cumsum(axis=1), totals.cumsum()
    sizes = below[:, -1:]
    return np.abs(below / sizes - (all_below - below) / (all_below[-1] - sizes)).max(axis=1)


def _chi_squared(firsts: _Array, totals: _Array) -> _Array:
    shares = firsts.sum(axis=1, keepdims=True) / totals.sum()
    # Of both rows of the table together: what one has too much, the other lacks.
    return ((firsts - shares * totals) ** 2 / (totals * shares * (1 - shares))).sum(axis=1)


def _draws(groups: int, first: int, at_once: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield which groups are in the first set, bool [some draws, groups], for `DRAWS` draws in all."""
    rng = np.random.default_rng(0)
    for start in range(0, DRAWS, at_once):
        number = min(at_once, DRAWS - start)
        chosen = np.argpartition(rng.random((number, groups)), first - 1, axis=1)[:, :first]
        is_first = np.zeros((number, groups), dtype=bool)
        np.put_along_axis(is_first, chosen, True, axis=1)
        yield is_first


def _numbers(names: Sequence[str]) -> npt.NDArray[np.int64]:
    numbers = cluster_numbers(names)
    return np.arange(len(names), dtype=np.int64) if numbers is None else numbers
