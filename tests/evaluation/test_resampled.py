import numpy as np
import pytest
from scipy.stats import ttest_1samp

from kth_lightning.evaluation.resampled import corrected_resampled_t


def test_it_is_students_test_with_a_wider_variance() -> None:
    differences = np.array([0.02, 0.01, 0.03, 0.00, 0.02])
    plain = ttest_1samp(differences, 0)
    assert corrected_resampled_t(differences, 0).p == pytest.approx(plain.pvalue)
    # Of five folds the test images are a quarter of the training images: 1/5 + 1/4 in place of 1/5.
    corrected = corrected_resampled_t(differences, 0.25)
    assert plain.statistic == pytest.approx(3.1379, abs=1e-4)
    assert corrected.p == pytest.approx(0.1046, abs=1e-4)  # t = 3.1379 * sqrt(0.2 / 0.45) = 2.0919 on 4 degrees
    assert corrected.difference == pytest.approx(0.016)
    assert (corrected.low, corrected.high) == pytest.approx((-0.00524, 0.03724), abs=1e-5)
    assert corrected_resampled_t(-differences, 0.25).p == corrected.p


def test_it_raises_no_false_alarm_where_plain_folds_do() -> None:
    """Two models that are equally good over all data differ on folds that share most of their training images."""
    rng = np.random.default_rng(0)
    folds, alarms, plain_alarms = 5, 0, 0
    for _ in range(400):
        # What training images have in common moves every fold's difference the same way.
        shared, own = rng.normal(0, 1) * np.sqrt(0.25), rng.normal(0, 1, folds)
        alarms += corrected_resampled_t(shared + own, 0.25).p < 0.05
        plain_alarms += ttest_1samp(shared + own, 0).pvalue < 0.05
    assert alarms / 400 < 0.075 < plain_alarms / 400


def test_folds_that_do_not_vary_give_nothing_to_judge_by() -> None:
    assert corrected_resampled_t(np.array([0.1, 0.1]), 0.25).p == 1
    assert corrected_resampled_t(np.zeros(5), 0.25).p == 1
