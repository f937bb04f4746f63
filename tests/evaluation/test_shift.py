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


def at_places(
    rng: np.random.Generator, brighter: float = 0, more: float = 0
) -> tuple[np.ndarray, dict[str, np.ndarray], list[str]]:
    """Draw twelve places of ten images each, which differ as much as their images do, in light and in classes."""
    places, images = 12, 10
    light = (rng.normal(brighter, 1, (places, 1)) + rng.normal(0, 1, (places, images))).ravel().round(1)
    odds = np.exp(rng.normal(0, 1, (places, 4)) + np.array([more, 0, 0, 0]))
    classes = np.concatenate([rng.choice(4, images, p=row / row.sum()) for row in odds])
    return classes, {"light": light}, [f"place {number // images}" for number in range(places * images)]


def test_places_that_differ_are_no_shift_of_all() -> None:
    rng = np.random.default_rng(0)
    wrong = alone = 0
    for _ in range(100):
        (then_class, then, then_group), (now_class, now, now_group) = at_places(rng), at_places(rng)
        found = find_shifts(then_class, now_class, then, now, (then_group, now_group))
        wrong += any(shift.shifted for shift in found)
        alone += any(shift.shifted for shift in find_shifts(then_class, now_class, then, now))
    assert wrong <= 11  # 5 % of 100 are 5, and 11 are nearly three standard deviations above them
    assert alone > 30  # as if all images were independent


def test_a_shift_of_all_places_is_found() -> None:
    rng, found = np.random.default_rng(0), []
    for _ in range(10):
        (then_class, then, groups), (now_class, now, _) = at_places(rng), at_places(rng, brighter=2, more=2.5)
        found.append(find_shifts(then_class, now_class, then, now, (groups, groups)))
    assert sum(shift.shifted for shifts in found for shift in shifts) >= 17  # of 20
    assert all(shift.p >= 2 / 2000 for shifts in found for shift in shifts)  # two p of 1999 draws, corrected


def test_groups_of_one_image_each_are_tested_as_images_are() -> None:
    rng = np.random.default_rng(0)
    classes, then, now = rng.integers(0, 3, 80), {"light": rng.random(80)}, {"light": rng.random(80) + 0.15}
    names = [str(number) for number in range(80)]
    alone = find_shifts(classes, classes, then, now)
    for one, other in zip(alone, find_shifts(classes, classes, then, now, (names, [""] * 80)), strict=True):
        assert (one.distance, one.then) == (other.distance, other.then)
        assert one.p == pytest.approx(other.p, abs=0.02)


def test_few_places_show_no_shift_however_many_their_images() -> None:
    light = {"light": np.arange(100.0)}
    later = {"light": np.arange(100.0) + 500}
    same, one = np.zeros(100, int), ["here"] * 100
    assert not any(shift.shifted for shift in find_shifts(same, same + 1, light, later, (one, one)))


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
