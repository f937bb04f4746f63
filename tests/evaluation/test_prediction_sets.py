import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import softmax

from kth_lightning.evaluation.prediction_sets import classes_alone, fewest_images, fit_sets, in_sets


def draw(
    rng: np.random.Generator, count: int, classes: int = 4, hard: int | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Draw labels and overconfident probabilities; those of one class are worse."""
    labels = rng.integers(0, classes, count)
    logits = rng.normal(0, 1, (count, classes))
    logits[np.arange(count), labels] += np.where(labels == hard, 0.3, 1.2)
    return labels, softmax(3 * logits, axis=1)


@pytest.mark.parametrize(("coverage", "needed"), [(0.9, 9), (0.95, 19), (0.99, 99), (0.5, 1)])
def test_a_promise_needs_so_many_images(coverage: float, needed: int) -> None:
    labels, probabilities = draw(np.random.default_rng(0), needed)
    assert fewest_images(coverage) == needed
    assert fit_sets(labels, probabilities, coverage) is not None
    assert fit_sets(labels[1:], probabilities[1:], coverage) is None


def test_new_images_are_covered_as_promised() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        limits = fit_sets(*draw(rng, 15), 0.9)  # too few for any class alone
        assert limits is not None
        assert len(set(limits)) == 1
        labels, probabilities = draw(rng, 100)
        shares.append(in_sets(probabilities, limits)[np.arange(100), labels].mean())
    error = np.std(shares) / np.sqrt(300)
    assert 0.9 - 3 * error < np.mean(shares) < 0.97


def test_every_class_with_enough_images_is_covered_by_itself() -> None:
    rng = np.random.default_rng(0)
    limits = fit_sets(*draw(rng, 2000, hard=2), 0.9)
    assert limits is not None
    assert classes_alone(draw(rng, 2000)[0], 4, 0.9) == 4
    labels, probabilities = draw(rng, 20_000, hard=2)
    sets = in_sets(probabilities, limits)
    for name in range(4):
        mine = labels == name
        assert sets[mine, name].mean() == pytest.approx(0.9, abs=0.03)
    together = np.full(4, np.quantile(limits, 0.5))
    assert in_sets(probabilities, together)[labels == 2, 2].mean() < 0.85


def test_rare_classes_share_a_limit() -> None:
    labels = np.repeat([0, 1, 2, 3], [60, 30, 4, 3])
    probabilities = draw(np.random.default_rng(0), len(labels))[1]
    limits = fit_sets(labels, probabilities, 0.9)
    assert limits is not None
    assert classes_alone(labels, 4, 0.9) == 1  # the second is taken for the rare ones, which are seven images
    assert limits[1] == limits[2] == limits[3]


def test_a_set_holds_the_most_probable_class_and_grows_with_doubt() -> None:
    probabilities = np.array([[0.98, 0.01, 0.01], [0.5, 0.4, 0.1], [0.4, 0.3, 0.3]])
    assert in_sets(probabilities, np.zeros(3)).sum(1).tolist() == [1, 1, 1]
    assert in_sets(probabilities, np.full(3, 0.6)).tolist() == [
        [True, False, False],
        [True, True, False],
        [True, True, False],
    ]
    assert in_sets(probabilities, np.ones(3)).all()
