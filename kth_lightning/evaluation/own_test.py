"""What a checkpoint's own run tested it on, as far as its run folder tells."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kth_lightning.errors import InputError
from kth_lightning.evaluation.clusters import cluster_numbers, clustered_accuracy_interval
from kth_lightning.evaluation.seen_images import ImageKeys
from kth_lightning.evaluation.shift import Shift, accuracy_difference, find_shifts
from kth_lightning.evaluation.statistics import accuracy_interval
from kth_lightning.io.image_name import content_key
from kth_lightning.io.predictions_file import Predictions
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.split_file import read_split


@dataclass(frozen=True)
class OwnTest:
    """Hold a run's own test.

    Attributes:
        run: The run folder.
        acc: Accuracy as metrics.json has it.
        predictions: Of its test images, N of them.
        statistics: What these are like, each of shape [N]; nothing where the run was made before there were such.
        files: Numbers of the files that these images are, or are boxes of, int64 [N], as `file_keys` has them.
    """

    run: RunFolder
    acc: dict[str, float]
    predictions: Predictions
    statistics: dict[str, npt.NDArray[np.float64]]
    files: Tensor

    def compare(
        self,
        labels: npt.NDArray[np.int64],
        right: npt.NDArray[np.bool_],
        now: dict[str, Any],
        groups: Sequence[str],
    ) -> dict[str, Any]:
        """Say how a test on new images differs, as metrics.json has it.

        Args:
            labels: Classes of images that were in no part of the checkpoint's own run, int64 [M], M at least 1.
            right: Whether each is classified correctly, bool [M].
            now: What they are like, each of shape [M].
            groups: Name of each one's group, empty where it has none; M of them.

        Returns:
            "run", its folder; "n" and "acc" of its own test; "compared", the same two of the new images; "difference",
            by how much the second "acc" is higher; "shifts", a row a property.
        """
        shifts = find_shifts(self.predictions.labels, labels, self.statistics, now, (self.predictions.groups, groups))
        clusters = cluster_numbers(groups)
        low, high = (
            accuracy_interval(int(right.sum()), len(right))
            if clusters is None
            else clustered_accuracy_interval(right, clusters)
        )
        acc = {"value": float(right.mean()), "low": low, "high": high}
        return {
            "run": str(self.run.path),
            "n": len(self.predictions.labels),
            "acc": self.acc,
            "compared": {"n": len(right), "acc": acc},
            "difference": accuracy_difference(self.acc, acc),
            "shifts": [_row(shift) for shift in shifts],
        }


def _row(shift: Shift) -> dict[str, Any]:
    return {name: getattr(shift, name) for name in ("name", "then", "now", "distance", "p", "shifted")}


def read_own_test(ckpt_path: Path, images: ImageKeys | None, class_names: list[str]) -> OwnTest | str:
    """Read the test of the run that a checkpoint lies in.

    Args:
        ckpt_path: The checkpoint; its run folder is the one above `checkpoints/`.
        images: What it says that it was made from.
        class_names: That it knows.

    Returns:
        A sentence instead, where there is no such test.
    """
    run = RunFolder(ckpt_path.absolute().parent.parent)
    if not run.metrics.exists() or images is None:
        return f"{ckpt_path} lies in no finished run, so its own test is not known"
    try:
        metrics, predictions, rows = run.read_metrics(), run.read_predictions(), read_split(run.splits, "")
        table = run.read_image_statistics()
        tested, files = (
            torch.tensor([content_key(digest) for digest in digests], dtype=torch.int64)
            for digests in zip(*((row.content, row.sha256) for row in rows if row.part == "test"), strict=True)
        )
        if not torch.equal(tested.sort()[0], images["test"].sort()[0]) or predictions.class_names != class_names:
            return f"{run.path} is not the run that {ckpt_path} came from, so its own test is not known"
        acc = {end: float(metrics["test"]["acc"][end]) for end in ("value", "low", "high")}
        names = list(next(iter(table.values()), {}))
        statistics = {name: np.array([table[image][name] for image in predictions.names]) for name in names}
    except (InputError, KeyError, TypeError, ValueError) as error:
        return f"the run's own test cannot be read ({error})"
    return OwnTest(run, acc, predictions, statistics, files)
