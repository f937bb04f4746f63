"""How far figures vary over runs, and where there are folds and seeds, over each of them."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Figures = dict[str, float | None]


def mean_and_sd(values: Sequence[float | None]) -> Figures:
    """Return "value", the mean, and "sd", the standard deviation, None for one; both None where a value is None."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return {"value": None, "sd": None}
    if len(known) == 1:
        return {"value": known[0], "sd": None}
    return {"value": statistics.fmean(known), "sd": statistics.stdev(known)}


def folds_and_seeds(
    tests: Sequence[str], seeds: Sequence[Any], figures: Mapping[str, Sequence[float | None]]
) -> tuple[dict[str, int], dict[str, Figures]]:
    """Tell the spread over folds from that over seeds.

    Args:
        tests: What tells each run's test images from another's.
        seeds: Of each run.
        figures: Each by its name, with a value a run.

    Returns:
        "folds" and "seeds", how many there are; and by a figure's name "sd_folds", the standard deviation over the
        folds of each one's mean over the seeds, and "sd_seeds", that over the seeds of each one's mean over the folds.
        No figure is there unless there are several folds, each trained once with each of several seeds.
    """
    counts = {"folds": len(set(tests)), "seeds": len(set(seeds))}
    pairs = set(zip(tests, seeds, strict=True))
    if min(counts.values()) < 2 or not len(pairs) == len(tests) == counts["folds"] * counts["seeds"]:
        return counts, {}
    return counts, {
        name: {"sd_folds": _sd_of_means(values, tests), "sd_seeds": _sd_of_means(values, seeds)}
        for name, values in figures.items()
    }


def _sd_of_means(values: Sequence[float | None], groups: Sequence[Any]) -> float | None:
    """Return the standard deviation of the groups' means."""
    means = [
        mean_and_sd([value for value, own in zip(values, groups, strict=True) if own == group])["value"]
        for group in dict.fromkeys(groups)
    ]
    return mean_and_sd(means)["sd"]
