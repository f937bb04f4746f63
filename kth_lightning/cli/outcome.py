"""What `fit` says when a run is finished."""

import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml

from kth_lightning.evaluation.statistics import confusion_matrix
from kth_lightning.io.predictions_file import Predictions
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.terminal import is_first_process, printable
from kth_lightning.report.imbalance import count_classes, recall_text

_CLASSES_NAMED = 3


def print_outcome(run: RunFolder) -> None:
    """Print what a finished run is worth, where its report lies, and how to use its checkpoint.

    Args:
        run: Its folder.
    """
    if not is_first_process():
        return
    metrics = run.read_metrics()
    accuracy = metrics["test"]["acc"]
    lines = recall_lines(run, metrics["test"])
    lines += [
        f"accuracy: {100 * accuracy['value']:.1f} % of {metrics['test']['n']} test images "
        f"(95 % interval {100 * accuracy['low']:.1f} to {100 * accuracy['high']:.1f} %)"
    ]
    lines += group_lines(metrics["test"])
    if lost := (metrics.get("left_out") or {}).get("left_out"):
        lines.append(f"left out: {lost} of {metrics['left_out']['files']} files")
    lines.append(f"most mistakes: {worst_classes(run.read_predictions())}")
    if run.report.exists():
        lines.append(f"report: {run.report}")
    lines.append(f"next: {_predict_command(run)}")
    print(printable("\n".join(lines)))


def recall_lines(run: RunFolder, figures: Mapping[str, Any]) -> list[str]:
    """Say the macro recall, and why it comes first, where classes are uneven."""
    counted = count_classes(run)
    return [f"macro recall: {recall_text(figures)}; the classes are uneven: {counted}"] if counted.is_uneven else []


def group_lines(figures: Mapping[str, Any]) -> list[str]:
    """Say what the interval of an accuracy is over where images have groups, and which group is the worst."""
    groups = figures.get("groups")
    if not groups:
        return []
    worst = groups["figures"][0]
    return [
        f"groups: {groups['n']} (the interval is over groups); the worst is {worst['group']} "
        f"({_test_images(worst['n'])}, {100 * worst['acc']['value']:.1f} % right)"
    ]


def worst_classes(predictions: Predictions) -> str:
    """Name the classes with the most wrong answers; of as many, the smaller class first."""
    matrix = confusion_matrix(
        predictions.labels, predictions.probabilities.argmax(axis=1), len(predictions.class_names)
    )
    right, support = matrix.diagonal(), matrix.sum(axis=1)
    wrong = support - right
    worst = [
        f"{predictions.class_names[index]} ({_test_images(support[index])}, {right[index]} right)"
        for index in np.lexsort((support, -wrong))[:_CLASSES_NAMED]
        if wrong[index]
    ]
    return ", ".join(worst) or "none, every test image is classified correctly"


def _test_images(count: int) -> str:
    return f"{count} test image" if count == 1 else f"{count} test images"


def _predict_command(run: RunFolder) -> str:
    command = ["python", "-m", "kth_lightning", "predict", "PATH", "--ckpt_path", str(run.best_checkpoint)]
    class_path = yaml.safe_load(run.config.read_text(encoding="utf-8"))["model"]["class_path"]
    if not class_path.startswith("kth_lightning."):
        command += ["--model_class", class_path]
    return shlex.join([*command, "--output", "predictions.csv"])
