import numpy as np
import pytest

from kth_lightning.evaluation.clusters import (
    cluster_interval,
    cluster_numbers,
    clustered_accuracy_interval,
    clustered_paired_test,
    per_group,
    summarise_groups,
)
from kth_lightning.evaluation.statistics import accuracy_interval, mcnemar, summarise


@pytest.mark.parametrize("number", [3, 8, 12])
def test_the_interval_holds_the_accuracy_of_further_groups_where_wilsons_does_not(number: int) -> None:
    """Groups with accuracies around 0.8, as sites have them: of 95 % intervals few may miss that."""
    rng = np.random.default_rng(number)
    ours, wilsons, times = 0, 0, 60 if number < 10 else 25
    for _ in range(times):
        images = rng.integers(10, 60, number)
        right = np.concatenate([rng.random(n) < share for n, share in zip(images, rng.beta(4, 1, number), strict=True)])
        low, high = clustered_accuracy_interval(right, np.repeat(np.arange(number), images))
        ours += low <= 0.8 <= high
        low, high = accuracy_interval(int(right.sum()), len(right))
        wilsons += low <= 0.8 <= high
    assert ours / times > 0.84  # 0.95 less three standard deviations of the simulation, and a little for few groups
    assert wilsons / times < 0.75


def test_the_interval_is_never_narrower_than_that_of_independent_images() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(200) < 0.9
    low, high = clustered_accuracy_interval(right, np.arange(200) % 20)
    assert low <= accuracy_interval(int(right.sum()), 200)[0]
    assert high >= accuracy_interval(int(right.sum()), 200)[1]


def test_groups_that_agree_count_as_trials_and_one_group_says_nothing() -> None:
    right = np.ones(300, dtype=bool)
    assert clustered_accuracy_interval(right, np.arange(300) % 4)[0] == pytest.approx(accuracy_interval(4, 4)[0])
    assert clustered_accuracy_interval(right, np.zeros(300, dtype=np.int64)) == (0.0, 1.0)


def test_a_bootstrap_of_groups_of_one_image_is_that_of_images() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(400)
    low, high = cluster_interval(lambda picks: values[picks].mean(), np.arange(400))
    error = values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.2 * error)


def test_an_image_without_a_group_is_one_of_its_own() -> None:
    assert cluster_numbers(["", "", ""]) is None
    numbers = cluster_numbers(["a", "", "b", "a", ""])
    assert len(set(numbers.tolist())) == 4
    assert numbers[0] == numbers[3]


def test_figures_with_groups_keep_their_values_and_name_the_worst() -> None:
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 3, 90), rng.dirichlet(np.ones(3), 90)
    groups = [f"site {number % 5}" if number != 7 else "" for number in range(90)]
    found, plain = summarise_groups(labels, probabilities, groups), summarise(labels, probabilities)
    for name in ("loss", "acc", "kappa", "recall"):
        assert found[name]["value"] == pytest.approx(plain[name]["value"])
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]
    assert found["groups"]["n"] == 6
    figures = found["groups"]["figures"]
    assert sum(row["n"] for row in figures) == 89
    assert summarise_groups(labels, probabilities, [""] * 90) == plain


def test_a_group_that_is_bad_for_sure_is_worse_than_a_single_mistake() -> None:
    groups = ["many"] * 40 + ["one"] + ["good"] * 40
    right = np.array([True] * 20 + [False] * 20 + [False] + [True] * 40)
    assert [row["group"] for row in per_group(groups, right)] == ["many", "one", "good"]


def test_the_paired_test_is_mcnemars_where_every_image_is_a_group() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(60) < 0.85, rng.random(60) < 0.6
    found, expected = clustered_paired_test(first, second, np.arange(60)), mcnemar(first, second)
    assert found.p == pytest.approx(expected.p)
    assert (found.first_only, found.second_only) == (expected.first_only, expected.second_only)


def test_the_paired_test_knows_how_few_groups_there_are() -> None:
    first, second = np.ones(100, dtype=bool), np.zeros(100, dtype=bool)
    assert mcnemar(first, second).p < 1e-20
    assert clustered_paired_test(first, second, np.arange(100) % 4).p == pytest.approx(2 / 2**4)


def test_the_paired_test_finds_no_difference_in_one_of_twenty() -> None:
    rng = np.random.default_rng(0)
    clusters, wrong = np.repeat(np.arange(12), 8), 0
    for _ in range(300):
        shares = rng.beta(1, 1, (2, 12))  # each model is good in places of its own
        first, second = (rng.random(96) < np.repeat(share, 8) for share in shares)
        wrong += clustered_paired_test(first, second, clusters).p < 0.05
    assert wrong / 300 < 0.09
