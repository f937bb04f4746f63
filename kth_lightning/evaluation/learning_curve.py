"""What more training images would give, from trainings on shares of them."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from kth_lightning.evaluation.class_gains import class_gains
from kth_lightning.evaluation.curve_scores import CurveScores
from kth_lightning.evaluation.power_law import PowerLaws, fit_power_laws

FORMS = {"power law": False, "power law with a floor": True}
"""Of the curve, and whether each has a floor."""

TIMES = (2, 4)
"""How many times as many images are asked about."""

_HALF = 0.55
"""Share of the images up to which a size counts as half of them: small classes are shared out in whole images."""

_FEWEST_WRONG, _FEWEST_SIZES = 5, 3
_BOUNDS = (2.5, 97.5)

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Means:
    """Hold a mean over images at each size, and how it varies.

    Attributes:
        images: Training images a class at each size, rising, shape [S].
        values: The mean, shape [S].
        drawn: The same of resampled images, shape [R, S].
        least: What one more image would change it by: added where a logarithm is taken, and the least standard error.
    """

    images: Array
    values: Array
    drawn: Array
    least: float

    @property
    def half(self) -> int:
        """Count the sizes of up to half of the images."""
        return int((self.images <= self.images[-1] * _HALF).sum())

    def part(self, sizes: int) -> "Means":
        """Return the smallest sizes alone."""
        return Means(self.images[:sizes], self.values[:sizes], self.drawn[:, :sizes], self.least)

    def told(self, images: Array, floor: bool) -> tuple[Array, Array]:
        """Fit power laws; return what that of the mean tells of numbers of images [I], and the resamples' [R, I]."""
        laws = self.fit(floor)(images)
        return laws[0], laws[1:]

    @property
    def errors(self) -> Array:
        """Return the standard error of each value, shape [S]."""
        return np.maximum(self.drawn.std(axis=0), self.least)

    def fit(self, floor: bool) -> PowerLaws:
        """Fit a power law to the mean, and then to each resample's, 1 + R of them."""
        return fit_power_laws(self.images, np.vstack([self.values, self.drawn]), self.errors, floor)

    def gains(self, form: str, forms: Iterable[str], times: float) -> tuple[float, Array]:
        """Return the exponent of a form, and what `times` as many images would give, over what it tells of that.

        The quotients [forms x R] are those with the exponent of each resample in each of `forms`, on the mean itself.
        """
        laws = {name: self.fit(FORMS[name]) for name in forms}

        @cache
        def gain(name: str, exponent: float) -> float:
            fixed = fit_power_laws(self.images, self.values[None], self.errors, FORMS[name], np.array([exponent]))
            return float(fixed.scale[0]) * (1 - times**-exponent)

        exponent = float(laws[form].exponent[0])
        drawn = [gain(name, item) for name, law in laws.items() for item in law.exponent[1:].tolist()]
        return exponent, np.array(drawn) / gain(form, exponent)


def judge_curve(scores: CurveScores) -> dict[str, Any]:
    """Fit the curves of error and cross-entropy, and say what more images would give, over all classes and to each.

    Args:
        scores: Of the trainings.

    Returns:
        "n", "folds", "grouped"; "sizes", for each "images" (of a class) and "acc" and "loss" with "value", "low" and
        "high". "acc" and "loss", each None or what `extrapolate` returns; "why", by the same names, a sentence where
        one is None. "classes", as `class_gains` gives them; none where "acc" is None.
    """
    counts = scores.resample()
    total = counts.sum(axis=1, keepdims=True)
    wrong = Means(scores.images, scores.wrong.mean(1), counts @ scores.wrong.T / total, 0.5 / len(scores.labels))
    loss = Means(scores.images, scores.losses.mean(1), counts @ scores.losses.T / total, 1e-6)
    errors, why_no_errors = _forecast(wrong, "error", _untold(wrong, scores))
    losses, why_no_losses = _forecast(loss, "cross-entropy", _not_falling(loss, "cross-entropy"))
    acc = _as_accuracy(errors) if errors else None
    classes = []
    if acc:
        exponent, factors = wrong.gains(acc["form"], acc["checks"], TIMES[0])
        gains = class_gains(scores, counts, exponent, FORMS[acc["form"]], TIMES[0], factors)
        classes = [asdict(item) for item in gains]
    return {
        "n": len(scores.labels),
        "folds": int(scores.folds.max()) + 1,
        "grouped": scores.grouped,
        "sizes": [
            {
                "images": float(images),
                "acc": _accuracy(scores, wrong, place),
                "loss": _bounded(loss.values[place], loss.drawn[:, place]),
            }
            for place, images in enumerate(scores.images)
        ],
        "acc": acc,
        "loss": losses,
        "why": {"acc": why_no_errors, "loss": why_no_losses},
        "classes": classes,
    }


def _forecast(means: Means, name: str, why: str | None) -> tuple[dict[str, Any] | None, str | None]:
    """Extrapolate a curve, or say why it tells nothing: for a reason that is known, or because it would rise again."""
    curve = None if why else extrapolate(means)
    if curve and curve["predictions"][0]["value"] >= means.values[-1]:
        return None, f"the {name} does not follow a curve that can be extended"
    return curve, why


def extrapolate(means: Means) -> dict[str, Any]:
    """Fit a falling curve, and say what more images would give.

    Of the two forms that one is taken that is less far off, in proportion, when it is fitted on up to half of the
    images and asked about all of them. As far as it is off there, it may be off again with each further doubling: that
    widens the intervals, beside what resamples vary in both forms, for that one was less far off may be chance.

    Returns:
        "form"; "checks", a form each, with "told", "low" and "high", what up to half of the images told of all of them,
        "came", and "off", the logarithm of the quotient of the two; "curve", "images" and "value" along the fitted
        curve; "predictions", for each of `TIMES` "times", "images" (of a class), "value", "low" and "high".
    """
    images = means.images
    half = means.part(means.half)
    checks = {name: _check(half, means, floor) for name, floor in FORMS.items() if len(half.images) > 2 + floor}
    form = min(checks, key=lambda name: abs(checks[name]["off"]))
    along = np.geomspace(images[0], images[-1] * TIMES[-1], 60)
    told = {name: means.told(np.append(along, images[-1] * np.array(TIMES)), FORMS[name]) for name in checks}
    value, drawn = told[form][0], np.concatenate([resamples for _, resamples in told.values()])
    doubt = np.random.default_rng(1).normal(0, abs(checks[form]["off"]), len(drawn))
    predictions = []
    for place, times in enumerate(TIMES, start=-len(TIMES)):
        bounded = _bounded(value[place], drawn[:, place] * np.exp(doubt * math.log2(times)))
        predictions.append({"times": times, "images": float(times * images[-1]), **bounded})
    curve = [{"images": x, "value": y} for x, y in zip(along.tolist(), value[: len(along)].tolist(), strict=True)]
    return {"form": form, "checks": checks, "curve": curve, "predictions": predictions}


def _check(half: Means, means: Means, floor: bool) -> dict[str, float]:
    value, drawn = half.told(means.images[-1:], floor)
    bounds, came = _bounded(value[0], drawn[:, 0]), float(means.values[-1])
    off = math.log((value[0] + means.least) / (came + means.least))
    return {"told": bounds["value"], "low": bounds["low"], "high": bounds["high"], "came": came, "off": off}


def _bounded(value: float, drawn: Array) -> dict[str, float]:
    low, high = np.percentile(drawn, _BOUNDS)
    return {"value": float(value), "low": float(min(low, value)), "high": float(max(high, value))}


def _accuracy(scores: CurveScores, wrong: Means, place: int) -> dict[str, float]:
    """Return a size's accuracy; its interval is never narrower than the one for further images of the same models."""
    bounds = _bounded(1 - wrong.values[place], 1 - wrong.drawn[:, place])
    own = scores.accuracy(place)
    return own | {"low": min(own["low"], bounds["low"]), "high": max(own["high"], bounds["high"])}


def _untold(wrong: Means, scores: CurveScores) -> str | None:
    number = int(scores.wrong[-1].sum())
    if number < _FEWEST_WRONG:
        return f"with all images {number} of {len(scores.labels)} are misclassified, too few for a forecast"
    return _not_falling(wrong, "error")


def _not_falling(means: Means, name: str) -> str | None:
    """Say why a curve would tell nothing: too few sizes, or no clear fall from a quarter of the images to all."""
    if means.half < _FEWEST_SIZES:
        return (
            f"{means.half} sizes have at most half of the images, and a forecast needs {_FEWEST_SIZES}; give more "
            "images, or more --sizes"
        )
    quarter = int(np.searchsorted(means.images, means.images[-1] / 4 * 0.99))
    if (means.drawn[:, -1] >= means.drawn[:, quarter]).mean() <= _BOUNDS[0] / 100:
        return None
    return f"the {name} is not clearly lower with all images than with {means.images[quarter]:.3g} a class"


def _as_accuracy(curve: dict[str, Any]) -> dict[str, Any]:
    """Turn what was told of errors into accuracies."""

    def turned(row: dict[str, Any]) -> dict[str, Any]:
        values = {name: 1 - min(row[name], 1.0) for name in ("value", "told", "came") if name in row}
        bounds = {"low": 1 - min(row["high"], 1.0), "high": 1 - min(row["low"], 1.0)} if "low" in row else {}
        return row | values | bounds

    return curve | {
        "checks": {name: turned(row) for name, row in curve["checks"].items()},
        "curve": [turned(row) for row in curve["curve"]],
        "predictions": [turned(row) for row in curve["predictions"]],
    }
