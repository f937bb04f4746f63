"""Which classes more images would help most."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kth_lightning.evaluation.curve_scores import CurveScores
from kth_lightning.evaluation.power_law import fit_power_laws

_RESAMPLES = 300
_DRAWS = 20_000
_ALIKE = 0.05


@dataclass(frozen=True)
class ClassGain:
    """Hold what more images would give one class.

    Attributes:
        name: Of the class.
        images: Number of its test images.
        recall: With all images.
        gain: What its recall would gain.
        low: Lower end of the 95 % interval of that.
        high: Upper end.
        most: The chance that no other class would gain more.
        alike: Whether the class that would gain most, by the estimates, may well gain less than this one.
    """

    name: str
    images: int
    recall: float
    gain: float
    low: float
    high: float
    most: float
    alike: bool


def class_gains(
    scores: CurveScores,
    counts: npt.NDArray[np.float64],
    exponent: float,
    floor: bool,
    times: float,
    factors: npt.NDArray[np.float64],
) -> list[ClassGain]:
    """Estimate what `times` as many images of every class would give each, the largest gain first.

    All classes share the exponent, for single ones have too few images to tell theirs. The estimates are drawn towards
    their mean by as much as they differ by chance (empirical Bayes), all the way where chance explains all of it.

    Args:
        scores: Of the curve.
        counts: Resamples of the images, as `CurveScores.resample` gives them, shape [R, N].
        exponent: Of the curve over all classes.
        floor: Whether that has one.
        times: How many times as many images.
        factors: By which the gain of all images together varies with the exponent and the form of the curve, in draws.
    """
    classes = len(scores.class_names)
    of_class = np.eye(classes)[scores.labels]
    images = of_class.sum(axis=0)
    share = (scores.wrong.sum(axis=1) + 1) / (len(scores.labels) + 2)
    errors_of_sizes = np.sqrt(share * (1 - share))
    lost = 1 - times**-exponent

    def gains(weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        weighted = of_class * weight[:, None]
        wrong = scores.wrong @ weighted / np.maximum(weighted.sum(axis=0), 1e-9)
        laws = fit_power_laws(scores.images, wrong.T, errors_of_sizes, floor, np.array([exponent]))
        return lost * laws.scale

    estimates = gains(np.ones(len(scores.labels)))
    errors = np.maximum(np.std([gains(row) for row in counts[:_RESAMPLES]], axis=0), lost / (images + 2))
    mean, deviations = _shrunk(estimates, errors)
    rng = np.random.default_rng(0)
    drawn = rng.normal(mean, deviations, (_DRAWS, classes)) * rng.choice(factors, (_DRAWS, 1))
    chances = np.bincount(drawn.argmax(axis=1), minlength=classes) / _DRAWS
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    best = mean.argmax()
    recall = 1 - scores.wrong[-1] @ of_class / images
    return [
        ClassGain(
            scores.class_names[place], int(images[place]), float(recall[place]), float(mean[place]),
            float(min(low[place], mean[place])), float(max(high[place], mean[place])), float(chances[place]),
            bool(place != best and (drawn[:, place] >= drawn[:, best]).mean() > _ALIKE),
        )
        for place in np.argsort(-mean, kind="stable")
    ]  # fmt: skip


def _shrunk(
    estimates: npt.NDArray[np.float64], errors: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Draw estimates towards their mean by as much as they vary by chance, and return them with their deviations."""
    mean = np.average(estimates, weights=errors**-2.0)
    real = max(float(np.var(estimates, ddof=1) - np.mean(errors**2)), 0.0)
    kept = real / (real + errors**2)
    of_mean = 1 / np.sum(errors**-2.0)
    return mean + kept * (estimates - mean), np.sqrt(kept * errors**2 + (1 - kept) ** 2 * of_mean)
