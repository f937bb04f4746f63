"""Whether two models differ by more than their figures vary from fold to fold."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student


@dataclass(frozen=True)
class ResampledTest:
    """Hold what the corrected resampled t-test says of two models over folds.

    Attributes:
        difference: Mean over the folds of the first model's figure less the second's.
        low: Lower end of the difference's 95 % interval; None where the folds do not vary.
        high: Its upper end.
        p: The chance of a mean difference at least this large, either way, if neither were better; 1 where the folds do
            not vary, which leaves nothing to judge by.
    """

    difference: float
    low: float | None
    high: float | None
    p: float


def corrected_resampled_t(differences: npt.NDArray[np.floating], test_to_train: float) -> ResampledTest:
    """Test differences over folds: the corrected resampled t-test of Nadeau and Bengio (2003), two-sided.

    The training images of folds overlap, so that the differences vary less than those of trainings on images of their
    own would. The variance of the mean is therefore (1/K + test_to_train) times that over the folds instead of 1/K.

    Args:
        differences: One a fold, shape [K], K at least 2; where a fold was trained with several seeds, their mean.
        test_to_train: Number of test images for each training image.
    """
    folds = len(differences)
    mean, deviation = float(np.mean(differences)), float(np.std(differences, ddof=1))
    if math.isclose(deviation, 0, abs_tol=1e-12):
        return ResampledTest(mean, None, None, 1.0)
    error = deviation * math.sqrt(1 / folds + test_to_train)
    reach = float(student.ppf(0.975, folds - 1)) * error
    return ResampledTest(mean, mean - reach, mean + reach, float(2 * student.sf(abs(mean) / error, folds - 1)))
