from dataclasses import replace

import numpy as np
import pytest

from kth_lightning.evaluation.curve_scores import CurveScores
from kth_lightning.evaluation.learning_curve import judge_curve
from kth_lightning.evaluation.power_law import fit_power_laws

SIZES = np.array([2.0, 4, 8, 16, 32, 64])


def scores(
    law: tuple[float, float, float], seed: int, difficulty: np.ndarray | None = None, images: int = 2000
) -> CurveScores:
    """Draw what models say whose error is floor + scale x images^-exponent, times what is hard about a class."""
    rng = np.random.default_rng(seed)
    hard = np.ones(10) if difficulty is None else difficulty
    labels = rng.integers(0, 10, images)
    floor, scale, exponent = law
    chances = (floor + scale * SIZES**-exponent)[:, None] * hard[labels]
    wrong = rng.random((len(SIZES), len(labels))) < chances
    losses = -np.log1p(-chances.clip(max=0.9)) * rng.gamma(4, 0.25, wrong.shape)
    return CurveScores(
        SIZES, wrong, losses, labels, np.arange(len(labels)) % 5, np.arange(len(labels)), [*map(str, range(10))]
    )


def test_a_law_without_noise_is_found_again() -> None:
    laws = [(0.0, 0.6, 0.5), (0.05, 0.6, 0.9), (0.02, 0.3, 0.4)]
    values = np.array([floor + scale * SIZES**-exponent for floor, scale, exponent in laws])
    found = fit_power_laws(SIZES, values, 0.01 * np.ones(6), floor=True)
    truth = [floor + scale * 256.0**-exponent for floor, scale, exponent in laws]
    assert found([256.0])[:, 0] == pytest.approx(truth, rel=0.03)
    assert fit_power_laws(SIZES, values, 0.01 * np.ones(6), floor=False).floor.tolist() == [0, 0, 0]


def test_intervals_hold_what_twice_and_four_times_as_many_images_give() -> None:
    held = {2: 0, 4: 0}
    for seed in range(6):
        law = (0.01, 0.5, 0.6) if seed % 2 else (0.0, 0.7, 0.5)
        curve = judge_curve(scores(law, seed))["acc"]
        for row in curve["predictions"]:
            floor, scale, exponent = law
            held[row["times"]] += row["low"] <= 1 - floor - scale * row["images"] ** -exponent <= row["high"]
            assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    assert min(held.values()) >= 5


def test_intervals_hold_where_a_floor_hardly_shows_yet() -> None:
    law, held = (0.03, 0.7, 0.6), {2: 0, 4: 0}
    for seed in range(10):
        curve = judge_curve(scores(law, seed, images=1000))["acc"]
        for row in curve["predictions"]:
            floor, scale, exponent = law
            held[row["times"]] += row["low"] <= 1 - floor - scale * row["images"] ** -exponent <= row["high"]
    assert min(held.values()) >= 9


def test_intervals_of_what_classes_gain_hold_it_for_hard_ones_too() -> None:
    hard, times = np.geomspace(0.4, 2.2, 10), 2
    hard /= hard.mean()
    scale, exponent = 0.2, 0.6
    gains = hard * scale * SIZES[-1] ** -exponent * (1 - times**-exponent)
    held, told = np.zeros(10), 0
    for seed in range(10):
        rows = judge_curve(scores((0.02, scale, exponent), seed, hard))["classes"]  # none where no curve is told
        told += bool(rows)
        for row in rows:
            held[int(row["name"])] += row["low"] <= gains[int(row["name"])] <= row["high"]
    assert told >= 6
    assert held[-3:].min() >= 0.8 * told
    assert held.mean() >= 0.9 * told


def test_the_form_is_the_one_that_half_of_the_images_tell_better() -> None:
    curve = judge_curve(scores((0.0, 0.7, 0.5), 0))["loss"]
    offs = {name: abs(check["off"]) for name, check in curve["checks"].items()}
    assert len(offs) == 2
    assert offs[curve["form"]] == min(offs.values())


def test_no_figure_is_told_where_there_is_none() -> None:
    perfect = scores((0.0, 0.0, 1.0), 0)
    outcome = judge_curve(perfect)
    assert outcome["acc"] is None
    assert "too few for a forecast" in outcome["why"]["acc"]
    assert outcome["classes"] == []
    few = replace(scores((0.0, 0.7, 0.5), 0), images=SIZES + 600)
    assert "0 sizes" in judge_curve(few)["why"]["loss"]
    flat = judge_curve(scores((0.3, 0.0, 1.0), 0))
    assert flat["acc"] is None
    assert "not clearly lower" in flat["why"]["acc"]


def test_nothing_is_told_of_a_curve_that_would_rise_again() -> None:
    chances = np.array([0.95, 0.95, 0.94, 0.94, 0.9, 0.6])  # learning begins with the last size
    labels = np.random.default_rng(0).integers(0, 10, 2000)
    wrong = np.random.default_rng(1).random((len(SIZES), len(labels))) < chances[:, None]
    losses = -np.log1p(-chances[:, None] * np.ones(wrong.shape))
    late = replace(scores((0.0, 0.7, 0.5), 0), wrong=wrong, losses=losses, labels=labels)
    outcome = judge_curve(late)
    assert outcome["acc"] is None
    assert outcome["loss"] is None
    assert "does not follow a curve" in outcome["why"]["acc"]
    assert "cross-entropy does not follow a curve" in outcome["why"]["loss"]


def test_the_class_that_gains_most_is_found_and_equal_ones_are_not_told_apart() -> None:
    hard = np.ones(10)
    hard[3] = 4
    uneven = judge_curve(scores((0.0, 0.2, 0.4), 0, hard))["classes"]
    assert uneven[0]["name"] == "3"
    assert uneven[0]["most"] > 0.9
    assert not any(row["alike"] for row in uneven)
    even = judge_curve(scores((0.0, 0.4, 0.4), 0))["classes"]
    assert sum(row["alike"] for row in even) >= 7
    assert max(row["most"] for row in even) < 0.6
