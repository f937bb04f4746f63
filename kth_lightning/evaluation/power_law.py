"""The power law by which errors fall with the number of training images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_EXPONENTS = np.geomspace(0.02, 3, 121)
"""Those that are tried, each 4 % above the one before: far finer than any data tell them apart."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PowerLaws:
    """Hold R laws: floor + scale x (images / unit)^-exponent.

    Attributes:
        floor: What no number of images falls below, shape [R].
        scale: What images take away, as far as `unit` of them have left it, shape [R].
        exponent: How fast they do, shape [R].
        unit: A number of images.
    """

    floor: Array
    scale: Array
    exponent: Array
    unit: float

    def __call__(self, images: npt.ArrayLike) -> Array:
        """Return each law's value at numbers of images [I], shape [R, I]."""
        times = np.asarray(images, float)[None] / self.unit
        return self.floor[:, None] + self.scale[:, None] * times ** -self.exponent[:, None]


def fit_power_laws(
    images: Array, values: Array, errors: Array, floor: bool, exponents: Array = _EXPONENTS
) -> PowerLaws:
    """Fit a law to each row of values by weighted least squares, neither floor nor scale below 0.

    Given the exponent the other two are a linear problem, solved for all rows at once; the exponent that leaves the
    least squares is taken. So no fit depends on where it begins, as those of all three at once do.

    Args:
        images: Numbers of images, rising, shape [S].
        values: At each of them, at least 0, shape [R, S].
        errors: Standard error of each value, above 0, shape [S].
        floor: Whether there may be one; 0 otherwise.
        exponents: Those that are tried.
    """
    falling = (images / images[-1]) ** -exponents[:, None] / errors
    flat, targets = 1 / errors, values / errors
    ff, f1, one = (falling**2).sum(1)[:, None], (falling @ flat)[:, None], flat @ flat
    fy, y1 = falling @ targets.T, (targets @ flat)[None]
    # Of both, the scale alone and the floor alone, those that are allowed and fit best.
    both = ff * one - f1**2
    candidates = [(np.zeros_like(fy), fy / ff)]
    if floor:
        candidates += [((ff * y1 - f1 * fy) / both, (one * fy - f1 * y1) / both), (y1 / one + 0 * fy, 0 * fy)]
    floors, scales = (np.stack(item) for item in zip(*candidates, strict=True))
    squares = floors**2 * one + scales**2 * ff + 2 * (floors * scales * f1 - floors * y1 - scales * fy)
    squares[(floors < 0) | (scales < 0)] = np.inf
    rows = np.arange(len(values))
    kind, place = np.unravel_index(squares.reshape(-1, len(values)).argmin(axis=0), squares.shape[:2])
    return PowerLaws(floors[kind, place, rows], scales[kind, place, rows], exponents[place], float(images[-1]))
