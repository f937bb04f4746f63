"""Sets of classes that hold the true one as often as was promised."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def fewest_images(coverage: float) -> int:
    """Return how many validation images a promise of this coverage needs."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def fit_sets(
    labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64], coverage: float
) -> npt.NDArray[np.float64] | None:
    """Choose for each class how much probability may stand above it in a set.

    Split conformal prediction: of n validation images' scores the one of rank (n + 1) * coverage, rounded up, is taken,
    so that a new image's true class has no higher one with at least that chance (Vovk et al., 2005): on the average
    over draws of the validation images, those of one draw may cover some less. The score is that
    of adaptive prediction sets without their random part (Romano et al., "Classification with Valid and Adaptive
    Coverage", 2020): the probability of all classes that are more probable. So a set always holds the most probable
    class, and its coverage may be more than was promised.

    A class with enough validation images has a limit of its own, and then the promise holds for it alone; the others
    share one, and where these together have too few images, so do the smallest of the classes with enough.

    Args:
        labels: Indices of the validation images' true classes, shape [N].
        probabilities: Shape [N, C].
        coverage: Between 0 and 1, exclusive.

    Returns:
        Limits, shape [C]; None where there are too few images.
    """
    needed = fewest_images(coverage)
    if len(labels) < needed:
        return None
    scores = _scores(probabilities)[np.arange(len(labels)), labels]
    limits = np.empty(probabilities.shape[1])
    for classes in _groups(np.bincount(labels, minlength=len(limits)), needed):
        own = np.sort(scores[np.isin(labels, classes)])
        rank = math.ceil((len(own) + 1) * coverage - 1e-9)
        limits[classes] = own[rank - 1]
    return limits


def classes_alone(labels: npt.NDArray[np.int64], classes: int, coverage: float) -> int:
    """Count the classes that have enough validation images for a promise of their own."""
    counts = np.bincount(labels, minlength=classes)
    return sum(len(group) == 1 for group in _groups(counts, fewest_images(coverage)))


def in_sets(probabilities: npt.NDArray[np.float64], limits: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Tell which classes are in the set of each image, shape [N, C].

    Args:
        probabilities: Shape [N, C].
        limits: As `fit_sets` chose them, shape [C].
    """
    return _scores(probabilities) <= limits


def _scores(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sum the probabilities of the classes that are more probable, shape [N, C]."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    falling = np.take_along_axis(probabilities, order, 1)
    scores = np.empty_like(probabilities)
    np.put_along_axis(scores, order, falling.cumsum(1) - falling, 1)
    return scores.clip(0)


def _groups(counts: npt.NDArray[np.int64], needed: int) -> list[Sequence[int]]:
    """Part the classes: those with enough images alone, the rest together, with as many more as these need."""
    rising = np.argsort(counts, kind="stable").tolist()
    together: list[int] = []
    while rising and (counts[rising[0]] < needed or (together and counts[together].sum() < needed)):
        together.append(rising.pop(0))
    groups: list[Sequence[int]] = [[item] for item in rising]
    return [together, *groups] if together else groups
