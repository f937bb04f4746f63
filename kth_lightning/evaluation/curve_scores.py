"""What was said of every image at every size of a learning curve, and how that varies."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kth_lightning.evaluation.clusters import cluster_numbers, clustered_accuracy_interval
from kth_lightning.evaluation.statistics import accuracy_interval, cross_entropies
from kth_lightning.io.predictions_file import Predictions

RESAMPLES = 1000


@dataclass(frozen=True)
class CurveScores:
    """Hold what models that were trained on S shares said of N images, each tested in one fold.

    Attributes:
        images: Mean number of training images a class of each share, rising, shape [S].
        wrong: Whether each image was misclassified, shape [S, N].
        losses: Its cross-entropy, shape [S, N].
        labels: Indices of the true classes, shape [N].
        folds: Number of each image's fold, shape [N].
        clusters: Number of each image's group, or of the image where it has none, shape [N].
        class_names: C of them.
        grouped: Whether images have groups.
    """

    images: npt.NDArray[np.float64]
    wrong: npt.NDArray[np.bool_]
    losses: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    folds: npt.NDArray[np.int64]
    clusters: npt.NDArray[np.int64]
    class_names: list[str]
    grouped: bool = False

    @classmethod
    def gather(cls, images: Sequence[float], predictions: Sequence[Sequence[Predictions]]) -> "CurveScores":
        """Put predictions together.

        Args:
            images: Mean number of training images a class of each size, rising.
            predictions: For each size those of each fold; a fold's have the same images in the same order at all sizes.
        """
        first = predictions[0]
        groups = [group for fold in first for group in fold.groups]
        clusters = cluster_numbers(groups)
        labels = np.concatenate([fold.labels for fold in first])
        said = [np.concatenate([fold.probabilities for fold in size]) for size in predictions]
        return cls(
            images=np.array(images, float),
            wrong=np.array([item.argmax(axis=1) != labels for item in said]),
            losses=np.array([cross_entropies(labels, item) for item in said]),
            labels=labels,
            folds=np.repeat(np.arange(len(first)), [len(fold.labels) for fold in first]),
            clusters=np.arange(len(groups)) if clusters is None else clusters,
            class_names=first[0].class_names,
            grouped=clusters is not None,
        )

    def accuracy(self, size: int) -> dict[str, float]:
        """Return the accuracy at a size, with its 95 % interval for further images, or groups, of the same models."""
        right = ~self.wrong[size]
        if self.grouped:
            low, high = clustered_accuracy_interval(right, self.clusters)
        else:
            low, high = accuracy_interval(int(right.sum()), len(right))
        return {"value": float(right.mean()), "low": low, "high": high}

    def resample(self, number: int = RESAMPLES) -> npt.NDArray[np.float64]:
        """Draw how often each image counts in further experiments, shape [number, N].

        Folds are drawn, which stand for other trainings, and inside each the images, or whole groups. Few folds tell
        little of how trainings differ: with fewer than five, what is drawn varies too little where they differ much.
        """
        rng = np.random.default_rng(0)
        counts = np.zeros((number, len(self.labels)))
        members = [np.flatnonzero(self.folds == fold) for fold in np.unique(self.folds)]
        own = [np.unique(self.clusters[some], return_inverse=True) for some in members]
        for row in counts:
            times = np.bincount(rng.integers(0, len(members), len(members)), minlength=len(members))
            for some, (names, places), many in zip(members, own, times, strict=True):
                drawn = np.bincount(rng.integers(0, len(names), many * len(names)), minlength=len(names))
                row[some] = drawn[places]
        return counts
