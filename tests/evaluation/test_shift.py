import numpy as np
import pytest

from kth_lightning.evaluation.shift import accuracy_difference, find_shifts, shift_sentence
from kth_lightning.evaluation.statistics import accuracy_interval


def accuracy(correct: int, total: int) -> dict[str, float]:
    low, high = accuracy_interval(correct, total)
    return {"value": correct / total, "low": low, "high": high}


def test_the_interval_of_a_difference_is_newcombes() -> None:
    # Newcombe, "Interval estimation for the difference between independent proportions", 1998, table II, method 10
    found = accuracy_difference(accuracy(48, 80), accuracy(56, 70))
    assert found["value"] == pytest.approx(0.2)
    assert (found["low"], found["high"]) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    found = accuracy_difference(accuracy(3, 10), accuracy(9, 10))
    assert (found["low"], found["high"]) == pytest.approx((0.1705, 0.8090), abs=5e-5)


def test_what_has_not_shifted_is_seldom_said_to_have() -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        sets = [
            (rng.integers(0, 4, count), {"size": rng.random(count), "light": rng.random(count)}) for count in (40, 90)
        ]
        (then_class, then), (now_class, now) = sets
        wrong += any(shift.shifted for shift in find_shifts(then_class, now_class, then, now))
    assert wrong <= 18  # 5 % of 200 is 10, and 18 is two and a half standard deviations above it


def test_what_has_shifted_is_named_with_its_medians() -> None:
    rng = np.random.default_rng(0)
    then, now = ({"light": rng.random(60) + add, "size": rng.random(60)} for add in (0, 0.5))
    shifts = find_shifts(rng.integers(0, 2, 60), rng.integers(0, 1, 60), then, now)
    assert {shift.name: shift.shifted for shift in shifts} == {"class mix": True, "light": True, "size": False}
    mix, light, _ = shifts
    assert light.now - light.then == pytest.approx(0.5, abs=0.2)
    assert 0.35 < mix.distance < 0.65
    said = shift_sentence(shifts)
    assert said.startswith("shifted: class mix (")
    assert said.endswith("; no shift was found in size")


def test_single_images_show_no_shift() -> None:
    one = np.array([0])
    assert not any(shift.shifted for shift in find_shifts(one, one + 1, {"light": one / 2}, {"light": one + 1.0}))
