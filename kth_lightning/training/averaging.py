"""The callback that averages weights over the steps of training."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from kth_lightning.errors import InputError
from kth_lightning.models import Classifier


class AveragedWeights(WeightAveraging):
    """Validate and keep an exponential moving average of the tail's weights and of what batch normalisation gathers.

    The average of the first steps is a plain one: step n counts at least 1 / n. Lightning's callback does the work;
    left to itself it would copy and average the frozen trunk at every step, swap weights again when the best checkpoint
    is tested after training, and average on the CPU where the model is on a GPU.

    Args:
        decay: Share of the average that a step keeps, between 0 and 1.

    Raises:
        InputError: The decay is no such share.
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise InputError(f"--weight_averaging {decay}: give the share of the average that a step keeps, below 1")

        def average(averaged: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor | int) -> None:
            share = max(1 - decay, 1 / (int(steps) + 1))
            for old, new in zip(averaged, current, strict=True):
                old.lerp_(new, share) if old.is_floating_point() else old.copy_(new)

        super().__init__(multi_avg_fn=average)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Copy the tail."""
        with _without_trunk(pl_module):
            super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the average where the model is by now."""
        assert self._average_model is not None
        self._average_model.to(pl_module.device)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *others: Any) -> None:
        """Take the step's weights into the average."""
        with _without_trunk(pl_module):
            super().on_train_batch_end(trainer, pl_module, *others)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the average."""
        with _without_trunk(pl_module):
            super().on_train_end(trainer, pl_module)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the average for as long as validation lasts."""
        with _without_trunk(pl_module):
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go back to the weights that are trained."""
        with _without_trunk(pl_module):
            super().on_validation_epoch_end(trainer, pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave alone what is loaded and evaluated after training."""
        self._average_model = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the average as the checkpoint's weights, and those to go on from beside it, without the trunk."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        assert isinstance(pl_module, Classifier)
        frozen = pl_module.frozen_state()
        for key in frozen:
            del checkpoint["current_model_state"][key]
        checkpoint["state_dict"] |= frozen  # which the module leaves out, as it does of every checkpoint

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with both, where training goes on."""
        if self._average_model is None:
            return
        assert isinstance(pl_module, Classifier)
        frozen = pl_module.frozen_state()
        tail = {key: value for key, value in checkpoint["state_dict"].items() if key not in frozen}
        with _without_trunk(pl_module):
            super().on_load_checkpoint(trainer, pl_module, checkpoint | {"state_dict": tail})


@contextmanager
def _without_trunk(model: L.LightningModule) -> Iterator[None]:
    """Show Lightning's callback the parameters and buffers of the tail alone."""
    assert isinstance(model, Classifier)
    trunk, model.trunk = model.trunk, None
    try:
        yield
    finally:
        model.trunk = trunk
