"""What thresholds and sets that were chosen on validation images come to on test images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kth_lightning.errors import InputError
from kth_lightning.evaluation import prediction_sets, selective
from kth_lightning.evaluation.clusters import cluster_numbers
from kth_lightning.evaluation.shares import Tally, share, tally
from kth_lightning.evaluation.validation_scores import ValidationScores, validation_scores

ACCURACIES = (0.95, 0.97, 0.98, 0.99)
COVERAGES = (0.9, 0.95, 0.99)


def trust_of(
    checkpoint: Mapping[str, Any],
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64],
    groups: Sequence[str],
) -> dict[str, Any] | None:
    """Measure a checkpoint's promises on test images, as `measure_trust` does.

    Args:
        checkpoint: It holds what it said of its validation images.
        labels: Indices of the test images' true classes, shape [N], N at least 1.
        probabilities: What it says of them, shape [N, C].
        groups: Name of each image's group, empty where it has none; N of them.

    Returns:
        None where it does not hold that, or a probability is no number.
    """
    try:
        validation = validation_scores(checkpoint, 1.0, "--min_accuracy")
    except InputError:
        return None
    return measure_trust(validation, labels, probabilities, groups) if np.isfinite(probabilities).all() else None


def measure_trust(
    validation: ValidationScores,
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64],
    groups: Sequence[str],
) -> dict[str, Any]:
    """Measure on test images what `predict --min_accuracy` and `--coverage` promise.

    Args:
        validation: What the classifier said of its validation images.
        labels: Indices of the test images' true classes, shape [N], N at least 1.
        probabilities: Shape [N, C].
        groups: Name of each image's group, empty where it has none; N of them. Where there are groups, intervals are
            for images of further ones.

    Returns:
        "validation_images"; "min_accuracy", a list of `decided` for each of `ACCURACIES`; "sets", a list of `covered`
        for each of `COVERAGES`.
    """
    clusters = cluster_numbers(groups)
    return {
        "validation_images": len(validation.labels),
        "min_accuracy": [decided(validation, labels, probabilities, clusters, accuracy) for accuracy in ACCURACIES],
        "sets": [covered(validation, labels, probabilities, clusters, coverage) for coverage in COVERAGES],
    }


def decided(
    validation: ValidationScores,
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64],
    clusters: npt.NDArray[np.int64] | None,
    accuracy: float,
) -> dict[str, Any]:
    """Measure a threshold for an accuracy.

    Returns:
        "wanted"; "needs", the fewest validation images for it; "threshold", null where there is none; of the "n" test
        images how many are "kept" and how many of these "right"; "decided" and "accuracy", the two shares with their
        95 % intervals; "groups", a `tally` of images, kept and right, null where there are no groups.
    """
    chosen = selective.choose_threshold(validation.confidences, validation.right, accuracy)
    keep = probabilities.max(axis=1) >= chosen.probability if chosen else np.zeros(len(labels), bool)
    keep_right = keep & (probabilities.argmax(axis=1) == labels)
    kept, right = int(keep.sum()), int(keep_right.sum())
    groups = None if clusters is None else tally(clusters, keep, keep_right)
    return {
        "wanted": accuracy,
        "needs": selective.fewest_images(accuracy),
        "threshold": chosen.probability if chosen else None,
        "n": len(labels),
        "kept": kept,
        "right": right,
        "decided": share(kept, len(labels), groups),
        "accuracy": share(right, kept, groups, (2, 1)),
        "groups": groups,
    }


def covered(
    validation: ValidationScores,
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64],
    clusters: npt.NDArray[np.int64] | None,
    coverage: float,
) -> dict[str, Any]:
    """Measure prediction sets.

    Returns:
        "promised"; "needs", the fewest validation images for it; of the "n" test images in how many sets the true class
        is ("hits"), null where there are no sets; "coverage", that share with its 95 % interval; "size", the mean
        number of classes in a set; "single", the share of sets of one class; "classes_alone", the number of classes
        with a promise of their own; "verdict", where the promise lies (see `verdict`); "groups", a `tally` of images
        and hits, null where there are no groups.
    """
    limits = prediction_sets.fit_sets(validation.labels, validation.probabilities, coverage)
    result = {"promised": coverage, "needs": prediction_sets.fewest_images(coverage), "n": len(labels)}
    if limits is None:
        return result | dict.fromkeys(("hits", "coverage", "size", "single", "classes_alone", "verdict", "groups"))
    sets = prediction_sets.in_sets(probabilities, limits)
    hit, sizes = sets[np.arange(len(labels)), labels], sets.sum(axis=1)
    hits, groups = int(hit.sum()), None if clusters is None else tally(clusters, hit)
    return result | {
        "hits": hits,
        "coverage": share(hits, len(labels), groups),
        "size": float(sizes.mean()),
        "single": float((sizes == 1).mean()),
        "classes_alone": prediction_sets.classes_alone(validation.labels, len(limits), coverage),
        "verdict": verdict(hits, len(labels), groups, coverage),
        "groups": groups,
    }


def verdict(hits: int, total: int, groups: Tally | None, promised: float) -> str:
    """Say where a promised coverage lies.

    Returns:
        "kept" within the interval of what was measured, "exceeded", or "missed"; "open" where that cannot be told: of
        a single group (without groups, a single image), or where half the promise lies within the interval too.
    """
    measured = share(hits, total, groups)
    low, high = measured["low"], measured["high"]
    assert low is not None
    assert high is not None
    trials = total if groups is None else sum(times for *_, times in groups)
    if trials < 2 or low <= promised / 2 <= promised <= high:
        return "open"
    return "exceeded" if promised < low else "missed" if promised > high else "kept"
