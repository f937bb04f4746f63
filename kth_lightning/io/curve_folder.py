"""The folder of a learning curve: the one place that knows its files' names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.run_json import read_json, write_json

_PLACE = re.compile(r"fold-(\d+)/size-(\d+)")


@dataclass(frozen=True)
class CurveFolder:
    """Name what is in the folder of a learning curve.

    Attributes:
        path: The folder itself.
    """

    path: Path

    def run(self, fold: int, size: int) -> RunFolder:
        """Name the folder of a training, from splits.csv at its beginning to predictions.csv at its end."""
        return RunFolder(self.path / f"fold-{fold}" / f"size-{size}")

    def runs(self) -> dict[tuple[int, int], RunFolder]:
        """List the trainings that were planned, by the numbers of their folds, from 0, and sizes, from 1."""
        found = {}
        for file in self.path.glob("fold-*/size-*/splits.csv"):
            if match := _PLACE.fullmatch(file.parent.relative_to(self.path).as_posix()):
                found[int(match[1]), int(match[2])] = RunFolder(file.parent)
        return dict(sorted(found.items()))

    @property
    def start(self) -> Path:
        """Name what the curve began with."""
        return self.path / "start.json"

    @property
    def table(self) -> Path:
        """Name the table with one row a training."""
        return self.path / "learning_curve.csv"

    @property
    def classes(self) -> Path:
        """Name the table with one row a class and size."""
        return self.path / "per_class.csv"

    @property
    def outcome(self) -> Path:
        """Name the figures: the curves, what more images would give, and what that is worth."""
        return self.path / "learning_curve.json"

    @property
    def figure(self) -> Path:
        """Name the picture."""
        return self.path / "figures" / "learning_curve.png"

    @property
    def report(self) -> Path:
        """Name the page."""
        return self.path / "report.html"

    def write_outcome(self, outcome: Mapping[str, Any]) -> None:
        """Write what `judge_curve` returns as JSON."""
        write_json(outcome, self.outcome)

    def read_outcome(self) -> dict[str, Any]:
        """Read what `write_outcome` wrote.

        Raises:
            InputError: The file is missing or damaged.
        """
        return read_json(self.outcome)

    def write_start(self, start: Mapping[str, Any]) -> None:
        """Write what the curve began with as JSON."""
        write_json(start, self.start)

    def read_start(self) -> dict[str, Any]:
        """Read what `write_start` wrote; nothing where there is no such file.

        Raises:
            InputError: The file is damaged.
        """
        return read_json(self.start) if self.start.exists() else {}
