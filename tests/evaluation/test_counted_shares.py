import numpy as np
import pytest

from kth_lightning.evaluation.clusters import clustered_accuracy_interval
from kth_lightning.evaluation.shares import Tally, share, tally
from kth_lightning.evaluation.statistics import accuracy_interval
from kth_lightning.evaluation.trust import measure_trust, verdict
from kth_lightning.evaluation.validation_scores import ValidationScores


def test_a_share_over_groups_is_that_of_each_image_and_its_group() -> None:
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, 30, 400)
    clusters = np.unique(clusters, return_inverse=True)[1]
    kept = rng.random(400) < 0.8
    right = rng.random(400) < rng.beta(8, 1, 30)[clusters]
    groups = tally(clusters, kept, kept & right)
    part, whole = int((kept & right).sum()), int(kept.sum())
    low, high = clustered_accuracy_interval(right[kept], np.unique(clusters[kept], return_inverse=True)[1])
    assert share(part, whole, groups, (2, 1))["value"] == part / whole
    assert share(part, whole, groups, (2, 1))["low"] == pytest.approx(low, abs=0.003)  # another order of the draws
    assert share(part, whole, groups, (2, 1))["high"] == pytest.approx(high, abs=0.003)
    assert share(part, whole)["low"] == accuracy_interval(part, whole)[0]


def test_counts_of_two_runs_are_those_of_both() -> None:
    clusters, marks = np.array([0, 0, 1, 2, 2, 3]), np.array([True, False, True, True, False, True])
    both = tally(clusters[:3], marks[:3]) + tally(clusters[3:] - 2, marks[3:])
    assert share(4, 6, both) == share(4, 6, tally(clusters, marks))
    assert tally(clusters, marks) == [[1, 1, 2], [2, 1, 2]]


def test_a_share_of_nothing_has_no_interval() -> None:
    nothing = {"value": None, "low": None, "high": None}
    assert share(0, 0) == share(0, 0, [[3, 0, 0, 4]], (2, 1)) == nothing


def test_one_place_says_nothing_of_the_next_one() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    logits = np.eye(2)[labels] * 4
    validation = ValidationScores(labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    found = measure_trust(validation, labels, validation.probabilities, ["site"] * 300)
    assert [row["accuracy"]["low"] for row in found["min_accuracy"]] == [0.0] * 4
    assert {row["verdict"] for row in found["sets"]} == {"open"}
    images = measure_trust(validation, labels, validation.probabilities, [""] * 300)
    assert min(row["accuracy"]["low"] for row in images["min_accuracy"]) > 0.98
    assert {row["verdict"] for row in images["sets"]} == {"exceeded", "kept"}


@pytest.mark.parametrize(
    ("hits", "total", "groups", "expected"),
    [
        (1, 1, None, "open"),
        (0, 1, None, "open"),
        (3, 3, None, "open"),
        (8, 9, None, "kept"),
        (0, 9, None, "missed"),
        (90, 100, None, "kept"),
        (100, 100, None, "exceeded"),
        (35, 40, [[40, 35, 1]], "open"),
        (30, 40, [[20, 20, 1], [20, 10, 1]], "open"),
        (360, 400, [[40, 36, 10]], "kept"),
    ],
)
def test_what_so_few_images_or_groups_cannot_contradict_is_no_kept_promise(
    hits: int, total: int, groups: Tally | None, expected: str
) -> None:
    assert verdict(hits, total, groups, 0.9) == expected
