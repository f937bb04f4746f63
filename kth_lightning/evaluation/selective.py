"""Which predictions to give and which to leave to people, such that those that are given are right often enough."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from kth_lightning.evaluation.clusters import clustered_estimate
from kth_lightning.evaluation.statistics import Estimate, estimate

ALPHA = 0.05
"""Chance that a threshold is chosen which does not keep what it promises."""


@dataclass(frozen=True)
class Threshold:
    """Hold the lowest probability at which a label is given.

    Attributes:
        probability: The label is `unknown` below it.
        kept: Number of validation images at or above it.
        right: How many of these are classified correctly.
        total: Number of validation images.
    """

    probability: float
    kept: int
    right: int
    total: int


def fewest_images(accuracy: float) -> int:
    """Return how many validation images, all classified correctly, show this accuracy with 95 % confidence."""
    return max(1, math.ceil(math.log(ALPHA) / math.log(accuracy) - 1e-9))


def choose_threshold(
    confidences: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], accuracy: float
) -> Threshold | None:
    """Choose the lowest threshold at which predictions are right with this accuracy, with 95 % confidence.

    Of the n most confident validation images, given the confidence of the next, each is right with the chance that any
    image above that confidence is: so the exact binomial test says whether that chance is at least `accuracy`. The
    choice among several n is allowed for by testing in a fixed sequence (Angelopoulos et al., "Learn then Test", 2021):
    n rises through numbers that depend on `accuracy` and the number of images alone, each tested at 5 %, and the first
    test that fails ends the sequence. The numbers are the lowest n for which 0, 1, 2, ... mistakes are few enough, from
    a quarter of the images on (there a mistake among the surest is not the end), and behind them all images.

    Args:
        confidences: Probability of the most probable class of each validation image, shape [N].
        right: Whether that is the true class, shape [N].
        accuracy: Between 0 and 1, exclusive.

    Returns:
        None where the first test fails, or there are too few images for it.
    """
    order = np.argsort(-confidences, kind="stable")
    falling, correct = confidences[order], right[order]
    total = len(falling)
    chosen = None
    for count in _sequence(accuracy, total):
        # As many as lie above the next image, fewer than `count` where others are as confident as that.
        kept = total if count == total else int((falling > falling[count]).sum())
        if kept < fewest_images(accuracy):
            continue
        hits = int(correct[:kept].sum())
        if binom.sf(hits - 1, kept, accuracy) > ALPHA:
            break
        lowest = 0.0 if kept == total else float(np.nextafter(falling[kept], 2))
        chosen = Threshold(lowest, kept, hits, total)
    return chosen


def highest_accuracy(confidences: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], below: float) -> float | None:
    """Return the highest accuracy below a wish, in steps of .005, that has a threshold; None where there is none."""
    wishes = (wish for wish in np.arange(0.995, 0.1, -0.005).round(3).tolist() if wish < below)
    return next((wish for wish in wishes if choose_threshold(confidences, right, wish)), None)


def _sequence(accuracy: float, total: int) -> list[int]:
    """List the numbers of images that are tested, rising."""
    counts = np.arange(1, total + 1)
    # The most mistakes with which so many images still show the accuracy; -1 where not even none would.
    allowed = binom.ppf(ALPHA, counts, 1 - accuracy).astype(int)
    allowed -= binom.cdf(allowed, counts, 1 - accuracy) > ALPHA
    rises = counts[np.diff(allowed, prepend=-1) > 0]
    return sorted({*rises[rises >= total / 4].tolist(), *([total] if len(rises) else [])})


@dataclass(frozen=True)
class RiskCoverage:
    """Hold how many predictions are wrong if only the most confident are given.

    Attributes:
        confidence: The lowest that is given, falling, shape [N].
        coverage: Share of the images whose prediction is given, shape [N].
        mistakes: How many of these are wrong, shape [N].
        area: Of the share that is wrong under the coverage: its mean over the N places, with a 95 % interval. Images
            of one confidence have no order, so that mistakes count alike at all of their places.
    """

    confidence: npt.NDArray[np.float64]
    coverage: npt.NDArray[np.float64]
    mistakes: npt.NDArray[np.int64]
    area: Estimate

    @property
    def risk(self) -> npt.NDArray[np.float64]:
        """Give the share of the predictions that are wrong, shape [N]."""
        return self.mistakes / np.arange(1, len(self.mistakes) + 1)


def risk_coverage(
    confidences: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], clusters: npt.NDArray[np.int64] | None = None
) -> RiskCoverage:
    """Measure how fast mistakes become rare if the least confident predictions are withheld.

    Args:
        confidences: Of each test image, shape [N], N at least 1.
        right: Whether it is classified correctly, shape [N].
        clusters: Number of its group, int64 [N]: the interval is then for images of further groups.
    """
    order = np.argsort(-confidences, kind="stable")
    places = np.arange(1, len(order) + 1)
    _, ranks = np.unique(-confidences, return_inverse=True)

    def area(picks: npt.NDArray[np.intp]) -> float:
        drawn = ranks[picks]
        times, mistakes = np.bincount(drawn), np.bincount(drawn, ~right[picks])
        known = times > 0
        wrong = np.repeat(mistakes[known] / times[known], times[known])
        return float((wrong.cumsum() / np.arange(1, len(wrong) + 1)).mean())

    return RiskCoverage(
        confidence=confidences[order],
        coverage=places / len(order),
        mistakes=(~right[order]).cumsum(),
        area=estimate(area, len(order)) if clusters is None else clustered_estimate(area, clusters, (0, 1)),
    )
