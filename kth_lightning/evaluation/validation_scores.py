"""What a classifier said of its validation images: the measure of what it may claim of new ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from kth_lightning.errors import InputError
from kth_lightning.evaluation.train_again import TRAIN_AGAIN

if TYPE_CHECKING:  # a report does not wait for torch
    from torch import Tensor

MOST_BYTES = 8_000_000
"""Of the logits that a checkpoint keeps."""


@dataclass(frozen=True)
class ValidationScores:
    """Hold what a classifier said of its validation images.

    Attributes:
        labels: Indices of the true classes, int64 [N].
        probabilities: float64 [N, C].
    """

    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]

    @property
    def confidences(self) -> npt.NDArray[np.float64]:
        """Give the probability of each image's most probable class, [N]."""
        return self.probabilities.max(axis=1)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Tell which images are classified correctly, [N]."""
        return self.probabilities.argmax(axis=1) == self.labels


def keep_scores(labels: "Tensor", logits: "Tensor", keys: "Tensor") -> dict[str, "Tensor"]:
    """Return what a checkpoint keeps of its validation images: `label` and `logits`, of as many as 8 MB hold.

    Args:
        labels: int64 [N].
        logits: [N, C].
        keys: int64 [N], numbers that depend on the images' content alone; the lowest are kept.
    """
    most = MOST_BYTES // (4 * logits.shape[1])
    kept = keys.argsort()[:most].sort()[0]
    return {"label": labels[kept].clone(), "logits": logits[kept].float().clone()}


def validation_scores(checkpoint: Mapping[str, Any], temperature: float, flag: str) -> ValidationScores:
    """Take out of a checkpoint what it said of its validation images.

    Args:
        checkpoint: As `read_checkpoint` gives it.
        temperature: Divides the logits.
        flag: What asks for it.

    Raises:
        InputError: The checkpoint does not hold it.
    """
    kept = checkpoint.get("validation")
    if kept is None:
        raise InputError(
            f"{flag}: the checkpoint has no predictions for its validation images: versions from 0.3.0 on keep "
            f"them: {TRAIN_AGAIN}"
        )
    if not _are_scores(kept):
        raise InputError(f"{flag}: the checkpoint's predictions for its validation images are damaged; give another")
    logits = kept["logits"].double().numpy()
    return ValidationScores(kept["label"].numpy(), softmax(logits / temperature, axis=1))


def _are_scores(kept: dict[str, "Tensor"]) -> bool:
    import torch

    if kept.keys() != {"label", "logits"} or not kept["logits"].isfinite().all():
        return False
    label, logits = kept["label"], kept["logits"]
    if (label.dtype, logits.dtype, label.ndim, logits.ndim) != (torch.int64, torch.float32, 1, 2):
        return False
    return len(label) == len(logits) > 0 and bool(((label >= 0) & (label < logits.shape[1])).all())
