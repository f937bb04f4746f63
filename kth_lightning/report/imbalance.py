"""Whether the classes of runs are so uneven that an accuracy says little of the small ones."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.split_file import read_split

UNEVEN = 5
"""Times as many images as the smallest class has, of the largest: beyond it macro recall leads."""


@dataclass(frozen=True)
class Counted:
    """Hold how many images of each class a run was trained on; of an evaluation, how many it judges.

    Attributes:
        counts: By class; those without an image are not in it.
        trained: Whether they were trained on.
    """

    counts: Mapping[str, int]
    trained: bool

    @property
    def ratio(self) -> float:
        """Return how many times as many images the largest class has as the smallest."""
        return max(self.counts.values()) / min(self.counts.values()) if self.counts else 1.0

    @property
    def is_uneven(self) -> bool:
        """Tell whether macro recall leads."""
        return self.ratio > UNEVEN

    def __str__(self) -> str:
        """Say what the classes range over."""
        (most, largest), (fewest, smallest) = (
            sorted((count, name) for name, count in self.counts.items())[place] for place in (-1, 0)
        )
        return f"{fewest} ({smallest}) to {most} ({largest}) {'training ' if self.trained else ''}images a class"


def count_classes(run: RunFolder) -> Counted:
    """Count a run's images of each class, as its splits.csv tells them; none where that cannot be read."""
    try:
        rows = read_split(run.splits, "")
    except InputError:
        return Counted({}, trained=False)
    trained = Counter(row.label for row in rows if row.part == "train")
    return Counted(trained or Counter(row.label for row in rows if row.part in ("val", "test")), trained=bool(trained))


def most_uneven(runs: Sequence[RunFolder]) -> Counted:
    """Return the counts of the run whose classes are the most uneven."""
    return max(map(count_classes, runs), key=lambda item: item.ratio)


def recall_text(figures: Mapping[str, Any]) -> str:
    """Write a macro recall with its interval."""
    recall = figures["recall"]
    text = f"{100 * recall['value']:.1f} %"
    if recall["low"] is None:
        return text
    return f"{text} (95 % interval {100 * recall['low']:.1f} to {100 * recall['high']:.1f} %)"
