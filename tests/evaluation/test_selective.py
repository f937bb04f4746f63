import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binomtest

from kth_lightning.evaluation.selective import choose_threshold, fewest_images, highest_accuracy, risk_coverage


def draw(rng: np.random.Generator, count: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Draw confidences, and whether predictions of such confidence are right: more seldom than they claim."""
    confidences = rng.beta(4, 1, count)
    return confidences, rng.random(count) < confidences**1.5


def true_accuracy(threshold: float) -> float:
    """Integrate confidence ** 1.5 over the density 4 confidence ** 3 above the threshold."""
    return 4 / 5.5 * (1 - threshold**5.5) / (1 - threshold**4)


@pytest.mark.parametrize(("accuracy", "needed"), [(0.97, 99), (0.95, 59), (0.99, 299), (0.5, 5)])
def test_so_many_images_all_right_are_needed(accuracy: float, needed: int) -> None:
    assert fewest_images(accuracy) == needed
    confidences = np.linspace(0.9, 0.99, needed)
    assert choose_threshold(confidences[1:], np.ones(needed - 1, bool), accuracy) is None
    chosen = choose_threshold(confidences, np.ones(needed, bool), accuracy)
    assert chosen is not None
    assert (chosen.probability, chosen.kept, chosen.right, chosen.total) == (0, needed, needed, needed)


def test_a_choice_fails_its_promise_at_most_one_time_in_twenty() -> None:
    rng = np.random.default_rng(0)
    trials, failed, decided = 400, 0, 0
    for _ in range(trials):
        chosen = choose_threshold(*draw(rng, 500), 0.85)
        decided += chosen is not None
        failed += chosen is not None and true_accuracy(chosen.probability) < 0.85
    assert decided > 0.9 * trials
    assert binomtest(failed, trials, 0.05, alternative="greater").pvalue > 0.01


def test_the_bound_on_what_is_kept_is_the_exact_binomial_one() -> None:
    confidences, right = draw(np.random.default_rng(5), 2000)
    chosen = choose_threshold(confidences, right, 0.9)
    assert chosen is not None
    kept = confidences >= chosen.probability
    assert (chosen.kept, chosen.right) == (kept.sum(), (kept & right).sum())
    bound = binomtest(chosen.right, chosen.kept, alternative="greater").proportion_ci(0.95, method="exact").low
    assert bound >= 0.9
    assert 0 < chosen.kept < 2000


def test_mistakes_among_the_surest_leave_no_threshold_and_less_can_be_had() -> None:
    confidences, right = np.linspace(0.5, 1, 200), np.ones(200, bool)
    right[-3] = False  # which later tests of the sequence would allow
    assert choose_threshold(confidences, right, 0.97) is None
    best = highest_accuracy(confidences, right, 0.97)
    assert best is not None
    assert choose_threshold(confidences, right, best) is not None
    assert best < 0.97
    assert highest_accuracy(confidences, np.zeros(200, bool), 0.97) is None


def test_images_of_one_confidence_are_kept_or_left_together() -> None:
    confidences = np.repeat([0.99, 0.6, 0.5], [150, 30, 20])
    right = np.repeat([True, False, False], [150, 30, 20])
    chosen = choose_threshold(confidences, right, 0.97)
    assert chosen is not None
    assert chosen.kept == chosen.right == 150
    assert 0.6 < chosen.probability <= 0.99


def test_the_curve_counts_mistakes_among_the_surest() -> None:
    confidences, right = np.array([0.9, 0.5, 0.8, 0.7]), np.array([True, False, False, True])
    curve = risk_coverage(confidences, right)
    assert curve.confidence.tolist() == [0.9, 0.8, 0.7, 0.5]
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert curve.mistakes.tolist() == [0, 1, 1, 2]
    assert curve.risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert curve.area["value"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    confidences, right = draw(np.random.default_rng(3), 300)
    area = risk_coverage(confidences, right).area
    assert area["low"] < area["value"] < area["high"] < (~right).mean()


def test_a_wish_that_is_named_instead_is_lower_and_has_a_threshold() -> None:
    right = np.ones(140, bool)
    right[[44, 45, 46, 110, 119]] = False
    confidences = np.linspace(0.99, 0.2, 140)
    assert choose_threshold(confidences, right, 0.93)  # what may be shown of a higher wish is not always of a lower
    assert choose_threshold(confidences, right, 0.9) is None
    named = highest_accuracy(confidences, right, below=0.9)
    assert named is not None
    assert named < 0.9
    assert choose_threshold(confidences, right, named)


def test_the_area_does_not_depend_on_the_order_of_images_of_one_confidence() -> None:
    confidences, right = np.ones(100), np.arange(100) >= 5
    areas = {round(risk_coverage(confidences, item).area["value"], 12) for item in (right, right[::-1])}
    assert areas == {0.05}
