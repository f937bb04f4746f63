"""Figures of each class with their intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kth_lightning.evaluation.clusters import cluster_numbers, clustered_accuracy_interval
from kth_lightning.evaluation.statistics import Estimate, accuracy_interval


def class_figures(
    labels: npt.NDArray[np.int64],
    predictions: npt.NDArray[np.int64],
    class_names: Sequence[str],
    groups: Sequence[str],
) -> list[dict[str, Any]]:
    """Measure each class, and give recall and precision their 95 % intervals.

    These are Wilson's; where images have groups, those of further groups.

    Args:
        labels: Indices of the true classes, int64 [N].
        predictions: Indices of the most probable classes, int64 [N].
        class_names: C of them.
        groups: Name of each image's group, empty where it has none; N of them.

    Returns:
        For each "class" its "n", the number of its images, "recall" (None without an image), "precision" (None where
        no image is given the class), each with "value", "low" and "high", and "f1" (None without an image).
    """
    right, clusters = labels == predictions, cluster_numbers(groups)
    found = []
    for position, name in enumerate(class_names):
        own, given = labels == position, predictions == position
        count = int(own.sum() + given.sum())
        found.append(
            {
                "class": name,
                "n": int(own.sum()),
                "recall": _share(right, own, clusters),
                "precision": _share(right, given, clusters),
                "f1": 2 * int((right & own).sum()) / count if own.any() else None,
            }
        )
    return found


def _share(
    right: npt.NDArray[np.bool_], chosen: npt.NDArray[np.bool_], clusters: npt.NDArray[np.int64] | None
) -> Estimate | None:
    """Return how many of the chosen images are right; None where none is chosen."""
    if not chosen.any():
        return None
    mine = right[chosen]
    if clusters is None:
        low, high = accuracy_interval(int(mine.sum()), len(mine))
    else:
        low, high = clustered_accuracy_interval(mine, np.unique(clusters[chosen], return_inverse=True)[1])
    return {"value": float(mine.mean()), "low": low, "high": high}
