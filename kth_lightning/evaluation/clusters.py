"""Figures of images that come in groups: those of one place or one patient are no independent trials."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, t

from kth_lightning.evaluation.statistics import (
    RESAMPLES,
    Estimate,
    PairedTest,
    accuracy_interval,
    cross_entropies,
    kappa,
    macro_recall,
    summarise,
    vary,
)

FEW = 10
"""Groups below which a bootstrap of them is too narrow."""

_CONFIDENCE = 0.95


def cluster_numbers(groups: Sequence[str]) -> npt.NDArray[np.int64] | None:
    """Number the images by their groups, int64 [N]; one without a group is one of its own.

    Args:
        groups: Name of each image's group, empty where it has none; N of them.

    Returns:
        None where no image has a group.
    """
    if not any(groups):
        return None
    names = [group or f"\0{position}" for position, group in enumerate(groups)]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def summarise_groups(
    labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.floating], groups: Sequence[str]
) -> dict[str, Any]:
    """Measure predictions as `summarise` does, and where images have groups, give intervals for further groups.

    Args:
        labels: Indices of the true classes, shape [N], N at least 1.
        probabilities: Shape [N, C].
        groups: Name of each image's group, empty where it has none; N of them.

    Returns:
        As `summarise`; with groups also "groups": "n", how many there are, an image without one counting by itself, and
        "figures", as `per_group` gives them.
    """
    clusters = cluster_numbers(groups)
    if clusters is None:
        return summarise(labels, probabilities)
    figures = per_group(groups, probabilities.argmax(axis=1) == labels)
    found = summarise_clusters(labels, probabilities, clusters)
    return found | {"groups": {"n": int(clusters.max()) + 1, "figures": figures}}


def summarise_clusters(
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.floating],
    clusters: npt.NDArray[np.int64],
    repeats: float = 1,
) -> dict[str, Any]:
    """Measure predictions as `summarise` does, with intervals for further groups.

    Args:
        labels: Indices of the true classes, shape [N], N at least 1.
        probabilities: Shape [N, C].
        clusters: Number of each image's group, int64 [N].
        repeats: How many times each image is among them.
    """
    predictions, losses = probabilities.argmax(axis=1), cross_entropies(labels, probabilities)
    right = predictions == labels
    low, high = clustered_accuracy_interval(right, clusters, repeats)
    return {
        "n": len(labels),
        "loss": clustered_estimate(lambda picks: losses[picks].mean(), clusters, (0, math.inf)),
        "acc": {"value": float(right.mean()), "low": low, "high": high},
        "kappa": clustered_estimate(lambda picks: kappa(labels[picks], predictions[picks]), clusters, (-1, 1)),
        "recall": clustered_estimate(lambda picks: macro_recall(labels[picks], predictions[picks]), clusters, (0, 1)),
    }


def cluster_interval(
    figure: Callable[[npt.NDArray[np.intp]], float], clusters: npt.NDArray[np.int64]
) -> tuple[float, float] | None:
    """Return a figure's 95 % interval on images of further groups: a bootstrap of whole groups, with a fixed seed.

    The percentiles are those of Hesterberg's expanded interval ("What Teachers Should Know About the Bootstrap", 2015).
    Draws of fewer than ten groups are too much alike: the interval is then Student's, with the standard error of a
    jackknife (the figure without each group in turn).

    Args:
        figure: From indices of images to its value on them.
        clusters: Number of each image's group, int64 [N].

    Returns:
        None where there is one group, or where the resamples do not vary.
    """
    number = int(clusters.max()) + 1
    if number < 2:
        return None
    order, sizes = np.argsort(clusters, kind="stable"), np.bincount(clusters, minlength=number)
    members = np.split(order, np.cumsum(sizes)[:-1])
    if number < FEW:
        return _students(figure, members)
    rng = np.random.default_rng(0)
    even = order.reshape(number, -1) if np.ptp(sizes) == 0 else None  # as with seeds: drawn at once

    def draw() -> npt.NDArray[np.intp]:
        picks = rng.integers(0, number, number)
        return np.concatenate([members[pick] for pick in picks]) if even is None else even[picks].ravel()

    drawn = np.array([figure(draw()) for _ in range(RESAMPLES)])
    drawn = drawn[np.isfinite(drawn)]
    if not vary(drawn):
        return None
    tail = norm.cdf(math.sqrt(number / (number - 1)) * t.ppf((1 - _CONFIDENCE) / 2, number - 1))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def _students(
    figure: Callable[[npt.NDArray[np.intp]], float], members: Sequence[npt.NDArray[np.intp]]
) -> tuple[float, float] | None:
    number, everything = len(members), np.concatenate(members)
    value = figure(everything)
    without = np.array([figure(np.concatenate([*members[:place], *members[place + 1 :]])) for place in range(number)])
    if not np.isfinite(without).all() or not vary(without):
        return None
    error = math.sqrt((number - 1) / number * ((without - without.mean()) ** 2).sum())
    reach = float(t.ppf((1 + _CONFIDENCE) / 2, number - 1)) * error
    return float(value - reach), float(value + reach)


def clustered_accuracy_interval(
    right: npt.NDArray[np.bool_], clusters: npt.NDArray[np.int64], repeats: float = 1
) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy on images of further groups, as `clustered_share_interval` gives it.

    Args:
        right: Whether each image is classified correctly, bool [N].
        clusters: Number of each image's group, int64 [N].
        repeats: How many times each image is among them.
    """
    return clustered_share_interval(np.bincount(clusters, right).astype(np.int64), np.bincount(clusters), repeats)


def clustered_share_interval(
    parts: npt.NDArray[np.int64], wholes: npt.NDArray[np.int64], repeats: float = 1
) -> tuple[float, float]:
    """Return the 95 % interval of a share of images, for images of further groups.

    It is never narrower than Wilson's, which takes images for independent. Where all groups agree, which says nothing
    of how others differ, it is Wilson's with as many trials as there are groups. One group says nothing of others.

    Args:
        parts: How many images of each group are in the share, int64 [G].
        wholes: Of how many of that group, int64 [G], at least one in all; groups of none say nothing.
        repeats: How many times each image counts in both.
    """
    parts, wholes = parts[wholes > 0], wholes[wholes > 0]
    number, part, whole = len(wholes), int(parts.sum()), int(wholes.sum())
    if number < 2:
        return 0.0, 1.0
    low, high = accuracy_interval(round(part / repeats), round(whole / repeats))
    drawn = cluster_interval(lambda picks: float(parts[picks].sum() / wholes[picks].sum()), np.arange(number))
    if drawn is None:
        drawn = accuracy_interval(round(part / whole * number), number)
    return max(0.0, min(low, drawn[0])), min(1.0, max(high, drawn[1]))


def per_group(groups: Sequence[str], right: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Measure every group, the worst first: that whose accuracy is low for sure comes before one of few images.

    Args:
        groups: Name of each image's group, empty where it has none; N of them.
        right: Whether each image is classified correctly, bool [N].

    Returns:
        For each "group", "n", "correct" and "acc", with Wilson's bounds for further images of that group.
    """
    names = np.array(groups)
    found = []
    for name in sorted({*groups} - {""}):
        mine = right[names == name]
        correct = int(mine.sum())
        low, high = accuracy_interval(correct, len(mine))
        acc = {"value": correct / len(mine), "low": low, "high": high}
        found.append({"group": name, "n": len(mine), "correct": correct, "acc": acc})
    return sorted(found, key=lambda row: (row["acc"]["high"], row["acc"]["value"]))


def clustered_paired_test(
    first_right: npt.NDArray[np.bool_], second_right: npt.NDArray[np.bool_], clusters: npt.NDArray[np.int64]
) -> PairedTest:
    """Compare two models on images that come in groups: an exact test that swaps the two in whole groups.

    Were neither better, each group's difference could as well have the other sign. With groups of one image each this
    is McNemar's exact test.

    Args:
        first_right: Whether the first is right on each image, bool [N].
        second_right: The same for the second.
        clusters: Number of each image's group, int64 [N].
    """
    difference = first_right.astype(np.int64) - second_right.astype(np.int64)
    of_group = np.bincount(clusters, difference).astype(np.int64)
    steps = np.abs(of_group[of_group != 0])
    # The chance of every sum of the steps with random signs, from the lowest one on.
    chances, total = np.ones(1), int(steps.sum())
    for step in steps:
        longer = np.zeros(len(chances) + 2 * step)
        longer[: len(chances)] += chances / 2
        longer[2 * step :] += chances / 2
        chances = longer
    sums = np.arange(-total, total + 1)
    p = float(chances[np.abs(sums) >= abs(int(of_group.sum()))].sum())
    return PairedTest(int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum()), min(p, 1.0))


def clustered_estimate(
    figure: Callable[[npt.NDArray[np.intp]], float],
    clusters: npt.NDArray[np.int64],
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """Give a figure its value on all images, and its interval on images of further groups.

    Args:
        figure: From indices of images to its value on them.
        clusters: Number of each image's group, int64 [N].
        limits: What its value is never below and above.
    """
    value = float(figure(np.arange(len(clusters))))
    if not math.isfinite(value):
        return {"value": None, "low": None, "high": None}
    bounds = cluster_interval(figure, clusters)
    if bounds is None:
        return {"value": value, "low": None, "high": None}
    low, high = np.clip(bounds, *limits)
    return {"value": value, "low": float(low), "high": float(high)}
