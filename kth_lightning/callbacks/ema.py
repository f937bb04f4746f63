"""The callback that averages weights over the steps of training."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from kth_lightning.errors import InputError
from kth_lightning.models import Classifier


class WeightAveraging(L.Callback):
    """Validate and keep an exponential moving average of the tail's weights and of what batch normalisation gathers.

    The average of the first steps is a plain one: step n counts at least 1 / n. Lightning's callback of that kind would
    walk through the whole model and average the frozen trunk at every step, and swap weights again when the best
    checkpoint is tested after training.

    Args:
        decay: Share of the average that a step keeps, between 0 and 1.

    Raises:
        InputError: The share is not between 0 and 1.
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise InputError(f"--ema_decay {decay}: give a share between 0 and 1, such as 0.99")
        self.decay = decay
        self._steps = 0
        self._trained: dict[str, Tensor] = {}
        self._average: dict[str, Tensor] = {}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the average, which the model has been given by now, and with the weights behind it.

        Raises:
            InputError: The checkpoint has no average.
        """
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if "current_model_state" not in checkpoint:
            raise InputError(f"{trainer.ckpt_path} was written without --ema_decay; give another --run_dir")
        self._average = {name: tensor.clone() for name, tensor in _tail(pl_module).items()}
        pl_module.load_state_dict(checkpoint["current_model_state"], strict=False)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with the weights as they are, where there is no average yet."""
        self._steps = trainer.global_step
        self._trained = _tail(pl_module)
        self._average = {
            name: self._average.get(name, tensor).to(tensor.device, copy=True) for name, tensor in self._trained.items()
        }

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Take the step's weights into the average."""
        if trainer.global_step == self._steps:  # gradients are still being gathered
            return
        self._steps = trainer.global_step
        share = max(1 - self.decay, 1 / self._steps)
        for name, trained in self._trained.items():
            average = self._average[name]
            average.lerp_(trained, share) if average.is_floating_point() else average.copy_(trained)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the average for as long as validation lasts."""
        self._swap()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go back to the weights that are trained."""
        self._swap()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the average as the checkpoint's weights, and those to go on from beside it."""
        if self._average:
            state = checkpoint["state_dict"]
            checkpoint["current_model_state"] = {name: state[name] for name in self._average}
            checkpoint["state_dict"] = state | self._average

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave alone what is loaded and evaluated after training."""
        self._trained, self._average = {}, {}

    def _swap(self) -> None:
        for name, trained in self._trained.items():
            average = self._average[name]
            kept = trained.clone()
            trained.copy_(average)
            average.copy_(kept)


def _tail(model: L.LightningModule) -> dict[str, Tensor]:
    """Return what training changes, in place."""
    assert isinstance(model, Classifier)
    state, frozen = model.state_dict(), model.frozen_state()
    return {name: tensor for name, tensor in state.items() if name not in frozen}
