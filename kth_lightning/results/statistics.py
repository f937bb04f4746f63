"""How good a classifier is on a test set, and how sure that is."""

import math

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

RESAMPLES = 2000

Estimate = dict[str, float | None]


def accuracy_interval(correct: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of an accuracy, from how many of `total` pictures (at least one) are right."""
    interval = binomtest(correct, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def cross_entropies(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return each picture's cross-entropy in nats, shape [N].

    A probability of 0 counts as float32's smallest normal number, which costs 87.3 nats.

    Args:
        labels: Places of the true classes, shape [N].
        probabilities: Shape [N, C].
    """
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(of_truth.clip(np.finfo(np.float32).tiny))


def kappa(labels: npt.NDArray[np.int64], predictions: npt.NDArray[np.int64]) -> float:
    """Return Cohen's kappa, unweighted; NaN where both sides name one and the same class only."""
    classes = max(labels.max(), predictions.max()) + 1
    frequencies = np.bincount(labels, minlength=classes) @ np.bincount(predictions, minlength=classes)
    chance = frequencies / len(labels) ** 2
    return math.nan if chance == 1 else float((np.mean(labels == predictions) - chance) / (1 - chance))


def macro_recall(labels: npt.NDArray[np.int64], predictions: npt.NDArray[np.int64]) -> float:
    """Return the mean recall of the classes that are in either argument, as torchmetrics does.

    A class that is predicted but never true counts with a recall of 0.
    """
    classes = max(labels.max(), predictions.max()) + 1
    true = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels[labels == predictions], minlength=classes)
    seen = true + np.bincount(predictions, minlength=classes) > 0
    return float(np.mean(hits[seen] / np.maximum(true[seen], 1)))


def summarise(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.floating]) -> dict[str, int | Estimate]:
    """Measure predictions and give each figure its 95 % interval.

    The accuracy's interval is Wilson's; the others are percentile bootstraps over the pictures with a fixed seed.

    Args:
        labels: Places of the true classes, shape [N], N at least 1.
        probabilities: Shape [N, C].

    Returns:
        "n", the number of pictures, and for each of "loss" (nats), "acc", "kappa" and "recall" its "value", "low" and
        "high". None stands for a value that is undefined, and for bounds where the resamples do not vary (one picture,
        or a kappa with no error): an interval of no width would claim a certainty that is not there.
    """
    predictions = probabilities.argmax(axis=1)
    losses = cross_entropies(labels, probabilities)
    total, correct = len(labels), int((predictions == labels).sum())

    random = np.random.default_rng(0)
    resamples = np.empty((3, RESAMPLES))
    for column in range(RESAMPLES):
        picks = random.integers(total, size=total)
        drawn = labels[picks], predictions[picks]
        resamples[:, column] = losses[picks].mean(), kappa(*drawn), macro_recall(*drawn)

    low, high = accuracy_interval(correct, total)
    return {
        "n": total,
        "loss": _estimate(float(losses.mean()), resamples[0]),
        "acc": {"value": correct / total, "low": low, "high": high},
        "kappa": _estimate(kappa(labels, predictions), resamples[1]),
        "recall": _estimate(macro_recall(labels, predictions), resamples[2]),
    }


def _estimate(value: float, resamples: npt.NDArray[np.float64]) -> Estimate:
    resamples = resamples[np.isfinite(resamples)]
    if not math.isfinite(value):
        return {"value": None, "low": None, "high": None}
    if len(resamples) == 0 or np.ptp(resamples) == 0:
        return {"value": value, "low": None, "high": None}
    low, high = np.percentile(resamples, [2.5, 97.5])
    return {"value": value, "low": float(low), "high": float(high)}
