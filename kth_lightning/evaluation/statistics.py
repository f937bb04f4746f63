"""How good a classifier is on a test set, and how sure that is."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import DegenerateDataWarning, binomtest, bootstrap, norm

RESAMPLES = 2000
_BATCH = 50  # resamples at once, which bounds the memory of very many images

_BORROWED = 4
"""Images by which a class's recall is drawn towards the mean; with 2 to 4, intervals held in 93 to 96 of 100 draws."""

Estimate = dict[str, float | None]


def accuracy_interval(correct: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of an accuracy, from how many of `total` images (at least one) are right."""
    interval = binomtest(correct, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def cross_entropies(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return each image's cross-entropy in nats, shape [N].

    A probability of 0 counts as float32's smallest normal number, which costs 87.3 nats.

    Args:
        labels: Indices of the true classes, shape [N].
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
    """Return the mean recall of the classes that have images; one that is only predicted has no recall."""
    hits, true = _recalls(labels, predictions)
    return float(np.mean(hits / true))


def macro_recall_estimate(labels: npt.NDArray[np.int64], predictions: npt.NDArray[np.int64]) -> Estimate:
    """Give the mean recall of the classes that have images its 95 % interval, for further images of each.

    It is Wilson's with as many trials as give a share the variance of the mean (an effective sample size: Korn and
    Graubard, "Confidence intervals for proportions with small expected number of positive counts estimated from survey
    data", 1998). A class's own variance is that of its recall after a few images more of mean recall, for of one image
    there is none. Resampled images would lack classes of few.
    """
    hits, true = _recalls(labels, predictions)
    value = float((hits / true).mean())
    shares = (hits + _BORROWED * value) / (true + _BORROWED)
    trials = len(true) ** 2 / float((1 / true).sum())
    if 0 < value < 1:
        trials = value * (1 - value) * len(true) ** 2 / float((shares * (1 - shares) / true).sum())
    z = float(norm.ppf(0.975))
    centre, reach = value + z**2 / (2 * trials), z * math.sqrt(value * (1 - value) / trials + (z / (2 * trials)) ** 2)
    low, high = ((centre + side * reach) / (1 + z**2 / trials) for side in (-1, 1))
    return {"value": value, "low": max(0.0, low), "high": min(1.0, high)}


def _recalls(
    labels: npt.NDArray[np.int64], predictions: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Count for each class that has images how many of them are right, and all of them."""
    true = np.bincount(labels)
    return np.bincount(labels[labels == predictions], minlength=len(true))[true > 0], true[true > 0]


@dataclass(frozen=True)
class PerClass:
    """Hold how well each class is told from the others; each of shape [C].

    Attributes:
        precision: Share of the images given this class that are of it; 0 where there are none.
        recall: Share of the class's images that are given it; 0 where there are none.
        f1: Harmonic mean of the two.
        support: How many images of the class there are.
    """

    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    f1: npt.NDArray[np.float64]
    support: npt.NDArray[np.int64]


def confusion_matrix(labels: npt.NDArray[np.int64], predictions: npt.NDArray[np.int64], classes: int) -> npt.NDArray:
    """Count images by true class (down) and predicted class (across), shape [classes, classes]."""
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def per_class(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.floating]) -> PerClass:
    """Measure each class alone.

    Args:
        labels: Indices of the true classes, shape [N].
        probabilities: Shape [N, C].
    """
    matrix = confusion_matrix(labels, probabilities.argmax(axis=1), probabilities.shape[1])
    hits, support, given = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    return PerClass(
        precision=hits / np.maximum(given, 1),
        recall=hits / np.maximum(support, 1),
        f1=2 * hits / np.maximum(support + given, 1),
        support=support,
    )


@dataclass(frozen=True)
class PairedTest:
    """Hold what McNemar's exact test says of two models on the same images.

    Attributes:
        first_only: How many images the first alone classifies correctly.
        second_only: How many the second alone does.
        p: The chance of counts at least this uneven if neither were better.
    """

    first_only: int
    second_only: int
    p: float


def mcnemar(first_right: npt.NDArray[np.bool_], second_right: npt.NDArray[np.bool_]) -> PairedTest:
    """Compare two models by the images that one alone classifies correctly: McNemar's test, exact and two-sided.

    Args:
        first_right: Whether the first is right on each image, shape [N].
        second_right: The same for the second.
    """
    first, second = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
    p = binomtest(first, first + second).pvalue if first + second else 1.0
    return PairedTest(first, second, float(p))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p values of several tests such that 5 % is the chance of any false alarm among them (Holm, 1979)."""
    adjusted = [0.0] * len(p_values)
    reached = 0.0
    for rank, position in enumerate(np.argsort(p_values)):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = reached
    return adjusted


def summarise(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.floating]) -> dict[str, int | Estimate]:
    """Measure predictions and give each figure its 95 % interval.

    The intervals of accuracy and macro recall are Wilson's, and those of cross-entropy and kappa percentile bootstraps
    over the images with a fixed seed.

    Args:
        labels: Indices of the true classes, shape [N], N at least 1.
        probabilities: Shape [N, C].

    Returns:
        "n", the number of images, and for each of "loss" (nats), "acc", "kappa" and "recall" its "value", "low" and
        "high". None stands for a value that is undefined, and for bounds where the resamples do not vary (one image,
        or a kappa with no error): an interval of no width would claim a certainty that is not there.
    """
    predictions = probabilities.argmax(axis=1)
    losses = cross_entropies(labels, probabilities)
    total, correct = len(labels), int((predictions == labels).sum())
    low, high = accuracy_interval(correct, total)
    return {
        "n": total,
        "loss": estimate(lambda picks: losses[picks].mean(), total),
        "acc": {"value": correct / total, "low": low, "high": high},
        "kappa": estimate(lambda picks: kappa(labels[picks], predictions[picks]), total),
        "recall": macro_recall_estimate(labels, predictions),
    }


def estimate(figure: Callable[[npt.NDArray[np.intp]], float], total: int) -> Estimate:
    """Give a figure its interval, from its value on resampled images; those on which it is undefined are left out."""
    everything = np.arange(total)
    value = float(figure(everything))
    if not math.isfinite(value):
        return {"value": None, "low": None, "high": None}
    if total < 2:
        return {"value": value, "low": None, "high": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # of undefined values, which are left out below
        drawn = bootstrap(
            (everything,), figure, vectorized=False, n_resamples=RESAMPLES, batch=_BATCH, method="percentile", rng=0
        ).bootstrap_distribution
    drawn = drawn[np.isfinite(drawn)]
    if not vary(drawn):
        return {"value": value, "low": None, "high": None}
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"value": value, "low": float(low), "high": float(high)}


def vary(drawn: npt.NDArray[np.float64]) -> bool:
    """Tell whether a figure's values on resamples differ by more than rounding."""
    return len(drawn) > 0 and bool(np.ptp(drawn) > 1e-12 * np.abs(drawn).max())
