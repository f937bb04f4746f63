import numpy as np
import pytest

from kth_lightning.evaluation.suspects import least_squares_likeness, rank_suspects


def test_the_most_suspect_is_the_image_that_looks_least_like_its_label() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3], [0.0, 0.0, 1.0]])
    found = rank_suspects(np.array([0, 1, 1, 0]), probabilities)
    assert found.order.tolist() == [3, 1, 2, 0]
    assert found.suggested.tolist() == [1, 2, 2, 2]
    assert found.score == pytest.approx([0.25, 0.65, 0.4, 1])  # (1 + p(other) - p(label)) / 2


def clusters(images: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    return rng.normal(0, 1, (images, 20)) + 3 * rng.normal(0, 1, (classes, 20))[labels], labels


def test_flipped_labels_come_first() -> None:
    features, truth = clusters(300, 4, seed=0)
    labels = truth.copy()
    labels[:30] = (labels[:30] + 1) % 4
    found = rank_suspects(labels, least_squares_likeness(features, labels, np.arange(300) % 5, 4))
    assert set(found.order[:30].tolist()) == set(range(30))
    assert (found.suggested[:30] == truth[:30]).all()
    assert found.score[found.order[29]] > 0.5 > found.score[found.order[30]]


def test_what_is_said_of_an_image_depends_on_other_folds_alone() -> None:
    features, labels = clusters(60, 3, seed=1)
    folds = np.arange(60) // 20
    before = least_squares_likeness(features, labels, folds, 3)
    assert before.sum(axis=1) == pytest.approx(np.ones(60))
    others = labels.copy()
    others[:20] = (others[:20] + 1) % 3  # all labels of the first fold
    after = least_squares_likeness(features, others, folds, 3)
    assert (before[:20].argmax(axis=1) == after[:20].argmax(axis=1)).all()
    assert not np.allclose(before[20:], after[20:])


def test_it_is_ridge_regression_with_a_free_intercept() -> None:
    features, labels = clusters(40, 2, seed=2)
    folds = np.arange(40) % 2
    said = least_squares_likeness(features, labels, folds, 2)
    known, targets = features[folds == 1], np.eye(2)[labels[folds == 1]]
    centred = known - known.mean(axis=0)
    product = centred.T @ (targets - targets.mean(axis=0))
    scale = (centred**2).sum() / len(known)
    solutions = [
        (features[folds == 0] - known.mean(axis=0))
        @ np.linalg.solve(centred.T @ centred + penalty * scale * np.eye(20), product)
        + targets.mean(axis=0)
        for penalty in 10.0 ** np.arange(-3, 2.5, 0.5)
    ]
    assert min(np.abs(said[folds == 0] - solution).max() for solution in solutions) < 1e-9
