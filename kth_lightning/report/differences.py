"""Whether the models of a comparison differ by more than chance, pair by pair."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from kth_lightning.evaluation.clusters import cluster_numbers, clustered_paired_test
from kth_lightning.evaluation.resampled import ResampledTest, corrected_resampled_t
from kth_lightning.evaluation.statistics import PairedTest, holm, mcnemar
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.csv_text import csv_text
from kth_lightning.io.split_file import read_split
from kth_lightning.report.model_runs import ModelRuns

TABLE = "differences.csv"
LEVEL = 0.05
_COLUMNS = [
    "first", "second", "only_first_right", "only_second_right", "p_mcnemar", "folds", "seeds", "difference", "low",
    "high", "p_t", "p_holm", "verdict",
]  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """Hold what tests say of two models on the same images.

    Attributes:
        indices: Of the two models.
        names: Of the two models, as in the table.
        images: McNemar's test, or with groups that of whole groups; where seeds test an image several times, by the
            images that one classifies correctly with more of its seeds.
        folds: Number of different test sets.
        seeds: Number of trainings on each.
        over_folds: The corrected resampled t-test of the accuracy; None with a single test set.
        adjusted: The larger of the tests' p values, by Holm's correction for the number of pairs.
        verdict: "better" where both tests say so; "more right" where there is a single test set and McNemar's says so,
            which is no claim about other images; else "open".
    """

    indices: tuple[int, int]
    names: tuple[str, str]
    images: PairedTest
    folds: int
    seeds: int
    over_folds: ResampledTest | None
    adjusted: float = 1.0
    verdict: str = "open"

    @property
    def p(self) -> float:
        """Return the p value by which both tests speak: the larger."""
        if self.over_folds is None:
            return self.images.p
        agree = self.over_folds.difference * (self.images.first_only - self.images.second_only) > 0
        return max(self.images.p, self.over_folds.p) if agree else 1.0

    @property
    def better(self) -> int:
        """Return which of the two, 0 or 1, is right more often."""
        return int(self.images.second_only > self.images.first_only)


def find_differences(models: Sequence[ModelRuns]) -> list[Difference]:
    """Test each two models whose runs tested the same images equally often."""
    found = []
    for (first, one), (second, other) in combinations(enumerate(models), 2):
        mine, others = _accuracies(one), _accuracies(other)
        if {test: len(values) for test, values in mine.items()} != {
            test: len(values) for test, values in others.items()
        }:
            continue
        times, other_times = _times_right(one), _times_right(other)
        more = np.array([times[name] - other_times[name] for name in times])
        over_folds = None
        if len(mine) > 1:
            differences = np.array([np.mean(mine[test]) - np.mean(others[test]) for test in mine])
            over_folds = corrected_resampled_t(differences, _test_to_train(one, len(mine)))
        names = (one.part.model, other.part.model)
        seeds = len(next(iter(mine.values())))
        group_of = dict(zip(one.names, one.groups, strict=True))
        clusters = cluster_numbers([group_of[name] for name in times])
        alone = (more > 0, more < 0)
        test = mcnemar(*alone) if clusters is None else clustered_paired_test(*alone, clusters)
        found.append(Difference((first, second), names, test, len(mine), seeds, over_folds))
    return [
        replace(item, adjusted=p, verdict=("better" if item.over_folds else "more right") if p < LEVEL else "open")
        for item, p in zip(found, holm([item.p for item in found]), strict=True)
    ]


def write_differences(differences: Sequence[Difference], folder: Path) -> None:
    """Write differences.csv, a row a pair; accuracies are shares, and p_holm is of the larger of the two p values."""
    rows: list[list[object]] = []
    for item in differences:
        over = item.over_folds
        cells = [over.difference, over.low, over.high, over.p] if over else [None] * 4
        rows.append(
            [*item.names, item.images.first_only, item.images.second_only, item.images.p, item.folds, item.seeds]
            + ["" if cell is None else cell for cell in cells]
            + [item.adjusted, item.verdict]
        )
    write_atomically(csv_text([_COLUMNS, *rows]), folder / TABLE)


def _accuracies(model: ModelRuns) -> dict[frozenset[str], list[float]]:
    """Return the accuracies of each test set, one a seed."""
    found: dict[frozenset[str], list[float]] = defaultdict(list)
    start = 0
    for item in model.predictions:
        names = model.names[start : start + len(item.paths)]
        start += len(item.paths)
        found[frozenset(names)].append(float(np.mean(item.probabilities.argmax(axis=1) == item.labels)))
    return found


def _times_right(model: ModelRuns) -> dict[str, int]:
    """Count for each test image how many of the runs classify it correctly."""
    counts: dict[str, int] = defaultdict(int)
    for name, right in zip(model.names, model.right.tolist(), strict=True):
        counts[name] += right
    return counts


def _test_to_train(model: ModelRuns, folds: int) -> float:
    """Return the number of test images for each training image, on the average over the runs.

    Where a run has no splits.csv, all images but those of the fold count as training images.
    """
    if not all(run.splits.exists() for run in model.part.runs):
        return 1 / (folds - 1)
    parts = [[row.part for row in read_split(run.splits, "")] for run in model.part.runs]
    return float(np.mean([item.count("test") / item.count("train") for item in parts]))
