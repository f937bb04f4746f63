"""Shares of images with their intervals, from counts that can be added up over runs."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kth_lightning.evaluation.clusters import clustered_share_interval
from kth_lightning.evaluation.statistics import Estimate, accuracy_interval

Tally = list[list[int]]
"""Counts of images in groups, a row for all groups that have the same: the counts, and how many groups these are."""


def tally(clusters: npt.NDArray[np.int64], *counted: npt.NDArray[np.bool_]) -> Tally:
    """Count in every group all images, and those that are marked.

    Args:
        clusters: Number of each image's group, int64 [N].
        counted: Marks, each bool [N].

    Returns:
        Rows of 1 + len(counted) + 1 numbers.
    """
    marks = [np.ones(len(clusters), dtype=bool), *counted]
    counts = np.stack([np.bincount(clusters, mark).astype(np.int64) for mark in marks], axis=1)
    rows, times = np.unique(counts, axis=0, return_counts=True)
    return np.column_stack([rows, times]).tolist()


def share(part: int, whole: int, groups: Tally | None = None, columns: tuple[int, int] = (1, 0)) -> Estimate:
    """Return a share with its 95 % interval; None for each where there is nothing to share.

    Args:
        part: Number of images.
        whole: Of so many.
        groups: How they lie in groups: the interval is then for images of further groups (`clustered_share_interval`),
            otherwise Wilson's.
        columns: Of `groups`, where part and whole stand there.
    """
    if whole == 0:
        return {"value": None, "low": None, "high": None}
    if groups is None:
        low, high = accuracy_interval(part, whole)
    else:
        parts, wholes = (_counts(groups)[:, column] for column in columns)
        low, high = clustered_share_interval(parts, wholes)
    return {"value": part / whole, "low": low, "high": high}


def _counts(groups: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    rows = np.array(groups, dtype=np.int64)
    return np.repeat(rows[:, :-1], rows[:, -1], axis=0)
