"""The trainings of a learning curve, read from its folder."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from kth_lightning.errors import InputError
from kth_lightning.evaluation.curve_scores import CurveScores
from kth_lightning.evaluation.statistics import cross_entropies, macro_recall
from kth_lightning.io.curve_folder import CurveFolder
from kth_lightning.io.predictions_file import Predictions
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.split_file import read_split


@dataclass(frozen=True)
class CurveRuns:
    """Hold what the trainings came to.

    Attributes:
        rows: One a training, the smallest size first: "size", "fold", "train_images", "images_a_class", "test_images",
            "acc", "recall" (the mean over classes), "loss" (the cross-entropy in nats) and "epochs".
        class_images: Number of training images of each class at each size, over all folds.
        scores: Of every image at every size.
    """

    rows: list[dict[str, Any]]
    class_images: list[Counter[str]]
    scores: CurveScores


def read_curve(folder: CurveFolder) -> CurveRuns:
    """Read the trainings of a learning curve.

    Raises:
        InputError: One has not ended, or a file is damaged.
    """
    runs = folder.runs()
    sizes, folds = (sorted({place[axis] for place in runs}) for axis in (1, 0))
    if missing := [run for run in runs.values() if not run.predictions.exists()]:
        raise InputError(
            f"{len(missing)} of {len(runs)} trainings of the learning curve in {folder.path} have not ended; repeat "
            "its command, which goes on"
        )
    if len(runs) != len(sizes) * len(folds) or not runs:
        raise InputError(f"{folder.path} lacks trainings of its learning curve; give another --run_dir")
    rows, predictions, class_images = [], [], []
    for size in sizes:
        counted = [_counted(runs[fold, size]) for fold in folds]
        read = [runs[fold, size].read_predictions() for fold in folds]
        rows += [
            _row(size, fold, images, said, runs[fold, size])
            for fold, images, said in zip(folds, counted, read, strict=True)
        ]
        predictions.append(read)
        class_images.append(sum(counted, Counter()))
    if any([item.paths for item in read] != [item.paths for item in predictions[0]] for read in predictions):
        raise InputError(f"the trainings in {folder.path} were not tested on the same images; give another --run_dir")
    means = [float(np.mean([row["images_a_class"] for row in rows if row["size"] == size])) for size in sizes]
    return CurveRuns(rows, class_images, CurveScores.gather(means, predictions))


def _counted(run: RunFolder) -> Counter[str]:
    return Counter(row.label for row in read_split(run.splits, "") if row.part == "train")


def _row(size: int, fold: int, images: Counter[str], said: Predictions, run: RunFolder) -> dict[str, Any]:
    named = said.probabilities.argmax(axis=1)
    return {
        "size": size,
        "fold": fold,
        "train_images": images.total(),
        "images_a_class": images.total() / len(said.class_names),
        "test_images": len(said.labels),
        "acc": float((named == said.labels).mean()),
        "recall": macro_recall(said.labels, named),
        "loss": float(cross_entropies(said.labels, said.probabilities).mean()),
        "epochs": len({row["epoch"] for row in run.read_history()}),
    }
