"""The loss of training: cross-entropy, or a module of one's own that gives one loss a row."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kth_lightning.data.batch import PADDING
from kth_lightning.errors import InputError


def check_loss(loss: nn.Module, num_classes: int) -> None:
    """Refuse a loss that does not give one number a row.

    Args:
        loss: Takes logits float32 [B, num_classes] and labels int64 [B].
        num_classes: Number of classes, the length of the logits.

    Raises:
        InputError: It fails, reduces, or gives something else.
    """
    name = type(loss).__name__
    try:
        with torch.no_grad():
            losses = loss(torch.zeros(2, num_classes), torch.tensor([0, num_classes - 1]))
    except Exception as error:  # whatever a loss for other data stumbles over
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--model.loss: {name} fails with logits [2, {num_classes}] and labels [2] ({reason}); give a loss for "
            "classes"
        ) from None
    if not isinstance(losses, Tensor) or losses.shape != (2,):
        given = f"a tensor of shape {list(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise InputError(
            f"--model.loss: {name} gives {given} for 2 images, not one loss a row; torch's own losses do with "
            "--model.loss.reduction none"
        )


def row_losses(
    logits: Tensor,
    labels: Tensor,
    loss: nn.Module | None = None,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the loss of each row, [B]; 0 where the label is `PADDING`.

    Args:
        logits: Float32 [B, C].
        labels: int64 [B].
        loss: As `check_loss` accepts; None for cross-entropy.
        class_weights: Factor of each class, [C].
        label_smoothing: Of the cross-entropy.
    """
    if loss is None:
        return F.cross_entropy(logits, labels, class_weights, None, PADDING, None, "none", label_smoothing)
    known = labels.clamp(min=0)
    losses = loss(logits, known)
    if class_weights is not None:
        losses = losses * class_weights[known]
    return torch.where(labels == PADDING, 0.0, losses)
