"""What thresholds and sets that were chosen on validation images come to on test images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from kth_lightning.errors import InputError
from kth_lightning.evaluation import prediction_sets, selective
from kth_lightning.evaluation.validation_scores import ValidationScores, validation_scores

ACCURACIES = (0.95, 0.97, 0.98, 0.99)
COVERAGES = (0.9, 0.95, 0.99)


def trust_of(
    checkpoint: Mapping[str, Any], labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]
) -> dict[str, Any] | None:
    """Measure a checkpoint's promises on test images, as `measure_trust` does.

    Args:
        checkpoint: It holds what it said of its validation images.
        labels: Indices of the test images' true classes, shape [N], N at least 1.
        probabilities: What it says of them, shape [N, C].

    Returns:
        None where it does not hold that, or a probability is no number.
    """
    try:
        validation = validation_scores(checkpoint, 1.0, "--min_accuracy")
    except InputError:
        return None
    return measure_trust(validation, labels, probabilities) if np.isfinite(probabilities).all() else None


def measure_trust(
    validation: ValidationScores, labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]
) -> dict[str, Any]:
    """Measure on test images what `predict --min_accuracy` and `--coverage` promise.

    Args:
        validation: What the classifier said of its validation images.
        labels: Indices of the test images' true classes, shape [N], N at least 1.
        probabilities: Shape [N, C].

    Returns:
        "validation_images"; "min_accuracy", a list of `decided` for each of `ACCURACIES`; "sets", a list of `covered`
        for each of `COVERAGES`.
    """
    return {
        "validation_images": len(validation.labels),
        "min_accuracy": [decided(validation, labels, probabilities, accuracy) for accuracy in ACCURACIES],
        "sets": [covered(validation, labels, probabilities, coverage) for coverage in COVERAGES],
    }


def decided(
    validation: ValidationScores,
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64],
    accuracy: float,
) -> dict[str, Any]:
    """Measure a threshold for an accuracy.

    Returns:
        "wanted"; "needs", the fewest validation images for it; "threshold", null where there is none; of the "n" test
        images how many are "kept" and how many of these "right"; "decided" and "accuracy", the two shares with their
        95 % intervals.
    """
    chosen = selective.choose_threshold(validation.confidences, validation.right, accuracy)
    keep = probabilities.max(axis=1) >= chosen.probability if chosen else np.zeros(len(labels), bool)
    kept, right = int(keep.sum()), int((keep & (probabilities.argmax(axis=1) == labels)).sum())
    return {
        "wanted": accuracy,
        "needs": selective.fewest_images(accuracy),
        "threshold": chosen.probability if chosen else None,
        "n": len(labels),
        "kept": kept,
        "right": right,
        "decided": selective.share(kept, len(labels)),
        "accuracy": selective.share(right, kept),
    }


def covered(
    validation: ValidationScores,
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64],
    coverage: float,
) -> dict[str, Any]:
    """Measure prediction sets.

    Returns:
        "promised"; "needs", the fewest validation images for it; of the "n" test images in how many sets the true class
        is ("hits"), null where there are no sets; "coverage", that share with its 95 % interval; "size", the mean
        number of classes in a set; "single", the share of sets of one class; "classes_alone", the number of classes
        with a promise of their own; "verdict", where the promise lies (see `verdict`).
    """
    limits = prediction_sets.fit_sets(validation.labels, validation.probabilities, coverage)
    result = {"promised": coverage, "needs": prediction_sets.fewest_images(coverage), "n": len(labels)}
    if limits is None:
        return result | dict.fromkeys(("hits", "coverage", "size", "single", "classes_alone", "verdict"))
    sets = prediction_sets.in_sets(probabilities, limits)
    hits, sizes = int(sets[np.arange(len(labels)), labels].sum()), sets.sum(axis=1)
    return result | {
        "hits": hits,
        "coverage": selective.share(hits, len(labels)),
        "size": float(sizes.mean()),
        "single": float((sizes == 1).mean()),
        "classes_alone": prediction_sets.classes_alone(validation.labels, len(limits), coverage),
        "verdict": verdict(hits, len(labels), coverage),
    }


def verdict(hits: int, total: int, promised: float) -> str:
    """Say where a promised coverage lies: "kept" within the interval of what was measured, "exceeded", or "missed"."""
    low, high = (selective.share(hits, total)[bound] for bound in ("low", "high"))
    assert low is not None
    assert high is not None
    return "exceeded" if promised < low else "missed" if promised > high else "kept"
