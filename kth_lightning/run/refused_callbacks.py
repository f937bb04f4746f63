"""Lightning's callbacks that a run cannot have."""

from collections.abc import Sequence

import lightning as L
from lightning.pytorch.callbacks import BackboneFinetuning, BatchSizeFinder, LearningRateFinder

from kth_lightning.errors import InputError

_REFUSED: dict[type[L.Callback], str] = {
    LearningRateFinder: "would train at another learning rate than config.yaml tells; give --model.optimizer.lr",
    BatchSizeFinder: "would train with another batch size than config.yaml tells; give --data.batch_size",
    BackboneFinetuning: (
        "would train what a classifier keeps frozen in its trunk; give --model FineTuned, whose last stages are trained"
    ),
}


def check_callbacks(callbacks: Sequence[L.Callback]) -> None:
    """Refuse callbacks under which a run would not be what its folder says.

    Raises:
        InputError: There is one.
    """
    for callback in callbacks:
        for kind, reason in _REFUSED.items():
            if isinstance(callback, kind):
                raise InputError(f"--trainer.callbacks: {type(callback).__name__} {reason}")
