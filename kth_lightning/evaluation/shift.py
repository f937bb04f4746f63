"""How the images that a classifier is tested on later differ from those that its own run tested it on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import MonteCarloMethod, chi2_contingency, ks_2samp

from kth_lightning.evaluation.dealt_groups import DRAWS, GroupsDealt
from kth_lightning.evaluation.statistics import holm

CLASS_MIX = "class mix"
STATISTICS = ("brightness", "sharpness", "megapixels")
"""What `image_statistics` measures; named here, where no figure waits for torch."""

ALPHA = 0.05


@dataclass(frozen=True)
class Shift:
    """Say of one property of images whether it has shifted.

    Attributes:
        name: "class mix", or one of the names of `image_statistics`.
        then: Median of the run's own test images; None for the class mix.
        now: Median of the later images, likewise.
        distance: How far the two distributions are apart, from 0 for the same to 1 for no overlap: the
            Kolmogorov-Smirnov statistic, or the total variation of the class mix.
        p: The chance of such a distance if both were drawn alike, after Holm's correction over all properties.
    """

    name: str
    then: float | None
    now: float | None
    distance: float
    p: float

    @property
    def shifted(self) -> bool:
        """Tell whether the distance is more than chance."""
        return self.p < ALPHA


def accuracy_difference(then: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Return by how much an accuracy differs from another one on other images, with its 95 % interval.

    The interval comes from those of the two: of Wilson's it is Newcombe's hybrid score interval (1998, method 10), of
    others that of Zou and Donner (2008).

    Args:
        then: "value", "low" and "high" of the earlier accuracy.
        now: The same of the later one.

    Returns:
        "value", "low" and "high", positive where the later accuracy is higher.
    """
    value = now["value"] - then["value"]
    return {
        "value": value,
        "low": value - float(np.hypot(now["value"] - now["low"], then["high"] - then["value"])),
        "high": value + float(np.hypot(now["high"] - now["value"], then["value"] - then["low"])),
    }


def find_shifts(
    classes_then: npt.NDArray[np.int64],
    classes_now: npt.NDArray[np.int64],
    then: Mapping[str, npt.NDArray[np.float64]],
    now: Mapping[str, npt.NDArray[np.float64]],
    groups: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> list[Shift]:
    """Compare two sets of images, property by property.

    The class mix is tested by chi-squared over random tables of the same sums, the others by the test of Kolmogorov and
    Smirnov. Where images have groups, which are alike within and differ from each other, both are compared with what
    they are when whole groups are dealt to the two sets at random (`GroupsDealt`).

    Args:
        classes_then: Index of each of the run's own test images' class, shape [N].
        classes_now: The same of the later images, shape [M].
        then: What the run's own test images are like, each of shape [N].
        now: The same of the later images, each of shape [M].
        groups: Names of the groups of the N and of the M images, empty for an image that has none; nothing where none
            has one. One name in both sets is two groups.
    """
    distance, p = _class_mix(classes_then, classes_now)
    dealt = GroupsDealt.of(*groups)
    if dealt:
        p = dealt.class_mix_p(np.concatenate([classes_then, classes_now]))
    found: list[tuple[str, float | None, float | None, float, float]] = [(CLASS_MIX, None, None, distance, p)]
    for name in then:
        test = ks_2samp(then[name], now[name])
        p = dealt.distribution_p(np.concatenate([then[name], now[name]])) if dealt else float(test.pvalue)
        found.append((name, float(np.median(then[name])), float(np.median(now[name])), float(test.statistic), p))
    return [Shift(*item[:-1], p) for item, p in zip(found, holm([item[-1] for item in found]), strict=True)]


def _class_mix(then: npt.NDArray[np.int64], now: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the total variation between two mixes of classes, and its p."""
    classes = int(max(then.max(), now.max())) + 1
    counts = np.stack([np.bincount(item, minlength=classes) for item in (then, now)])
    counts = counts[:, counts.any(axis=0)]
    shares = counts / counts.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    if counts.shape[1] < 2:
        return distance, 1.0
    drawn = MonteCarloMethod(n_resamples=DRAWS, rng=np.random.default_rng(0))
    return distance, float(chi2_contingency(counts, correction=False, method=drawn).pvalue)


def shift_sentence(shifts: Sequence[Shift]) -> str:
    """Say which properties have shifted, and which have not."""
    moved = [_of(shift) for shift in shifts if shift.shifted]
    stayed = [shift.name for shift in shifts if not shift.shifted]
    if not moved:
        return f"no shift was found in {', '.join(stayed)}"
    return f"shifted: {'; '.join(moved)}" + (f"; no shift was found in {', '.join(stayed)}" if stayed else "")


def _of(shift: Shift) -> str:
    p = "p < 0.001" if shift.p < 0.001 else f"p {shift.p:.2g}"
    if shift.then is None:
        return f"{shift.name} ({100 * shift.distance:.0f} % of it moved between classes, {p})"
    return f"{shift.name} (median {shift.then:.3g} before and {shift.now:.3g} now, {p})"
