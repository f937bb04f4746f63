"""The figures of an epoch: ours, and torchmetrics that a user adds."""

import re
import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCohenKappa, MulticlassRecall

from kth_lightning.data.batch import PADDING
from kth_lightning.errors import InputError

MetricCallable = Callable[[int], Metric]
"""Takes the number of classes, as torchmetrics' Multiclass... classes do."""

_OURS = ("loss", "loss_calibrated", "acc", "kappa", "recall", "lr", "seconds", "epoch")


class MacroRecall(MulticlassRecall):
    """Average the recall of the classes that have images; torchmetrics' own counts 0 for one that is only predicted."""

    def compute(self) -> Tensor:
        """Return the mean, of no image NaN."""
        true = self.tp + self.fn  # type: ignore[operator]  # a list where samples are kept apart, which these are not
        return (self.tp / true)[true > 0].mean()  # type: ignore[operator, arg-type]


def own_metrics(num_classes: int) -> MetricCollection:
    """Return accuracy, Cohen's kappa and mean recall, which pass over padding."""
    metrics = MetricCollection(
        {
            "acc": MulticlassAccuracy(num_classes, average="micro", ignore_index=PADDING),
            "kappa": MulticlassCohenKappa(num_classes, ignore_index=PADDING),
            "recall": MacroRecall(num_classes, average="macro", ignore_index=PADDING),
        }
    )
    for metric in metrics.values():
        metric.validate_args = False  # an epoch's labels are ours, and looking them over takes longer than counting
    return metrics


def extra_metrics(chosen: Mapping[str, MetricCallable], num_classes: int) -> MetricCollection:
    """Make the metrics that a user adds, and try each on two rows.

    Args:
        chosen: By the names that they get beside "acc" and "kappa".
        num_classes: Of the classifier.

    Raises:
        InputError: A name is taken or no word, or a metric does not turn logits [B, C] and labels [B] into one number.
    """
    metrics: dict[str, Metric | MetricCollection] = {}
    for name, make in chosen.items():
        if name in _OURS or not re.fullmatch(r"\w+", name):
            raise InputError(f"--model.metrics: {name!r} is taken, or no plain word; give the metric another name")
        try:
            metric = make(num_classes)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # two rows of equal logits are no data to judge by
                metric.update(torch.zeros(2, num_classes), torch.tensor([0, num_classes - 1]))
                value = metric.compute()
        except Exception as error:  # whatever a metric for other data stumbles over
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"--model.metrics: {name} fails with logits [2, {num_classes}] and labels [2] ({reason}); give one "
                "of torchmetrics' Multiclass... classes"
            ) from None
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            raise InputError(f"--model.metrics: {name} gives more than one number; set its average, such as macro")
        metric.reset()
        metrics[name] = metric
    return MetricCollection(metrics, compute_groups=False)


def figures_of(metrics: MetricCollection, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Measure predictions that one process holds all of, without a word to the others.

    Args:
        metrics: Left as they are.
        logits: Float32 [N, C].
        labels: int64 [N].
    """
    figures: dict[str, float] = {}
    for name, metric in metrics.items(keep_base=True):
        alone = deepcopy(metric).cpu()
        assert isinstance(alone, Metric)
        alone.distributed_available_fn = lambda: False
        alone.reset()
        alone.update(logits, labels)
        figures[str(name)] = float(alone.compute())
    return figures
