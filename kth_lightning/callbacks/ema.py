"""The callback that averages weights over the steps of training."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from kth_lightning.errors import InputError
from kth_lightning.models import Classifier


class TailAveraging(WeightAveraging):
    """Exponential moving average of what is trained, which is validated and kept in place of the weights themselves.

    The average of the first steps is a plain one: step n counts at least 1 / n. Lightning's own callback would copy
    the frozen trunk and walk through it at every step, and would swap weights again when the best checkpoint is tested
    after training: this one shows it the tail alone, and only in training.

    Args:
        decay: Share of the average that a step keeps, between 0 and 1.

    Raises:
        InputError: The share is not between 0 and 1.
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise InputError(f"--ema_decay {decay}: give a share between 0 and 1, such as 0.99")
        super().__init__(multi_avg_fn=self._average)
        self.decay = decay
        self._step = 0
        self._tail: _Tail | None = None

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Take every step of the optimiser in."""
        if step_idx is None:
            return False
        self._step = step_idx + 1
        return True

    def _average(self, averages: tuple[Tensor, ...], weights: tuple[Tensor, ...], _: Tensor) -> None:
        share = max(1 - self.decay, 1 / self._step)  # a number of the host's: torch's count would make a GPU wait
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight, share) if average.is_floating_point() else average.copy_(weight)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Copy the tail to where it will be trained."""
        if stage == "fit":
            super().setup(trainer, _Tail(pl_module, trainer.strategy.root_device), stage)
            self._tail = _Tail(pl_module, trainer.strategy.root_device)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take hold of the tail anew, some tensors of which a move to another device has replaced."""
        self._tail = _Tail(pl_module, trainer.strategy.root_device)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Take the step's weights into the average."""
        super().on_train_batch_end(trainer, self._require_tail(), *args)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the average for as long as validation lasts."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_start(trainer, self._require_tail())

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go back to the weights that are trained."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_end(trainer, self._require_tail())

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the average in the model."""
        super().on_train_end(trainer, self._require_tail())

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the average as the checkpoint's weights, and those to go on from beside it."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        whole, tail = checkpoint["state_dict"], self._require_tail()
        checkpoint["state_dict"] = {name: whole[name] for name in tail.state_dict()}
        super().on_save_checkpoint(trainer, tail, checkpoint)
        checkpoint["state_dict"] = whole | checkpoint["state_dict"]

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the average and with the weights behind it.

        Raises:
            InputError: The checkpoint has no average.
        """
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if "averaging_state" not in checkpoint:
            raise InputError(f"{trainer.ckpt_path} was written without --ema_decay; give another --run_dir")
        tail = self._require_tail()
        averages = {name: checkpoint["state_dict"][name] for name in tail.state_dict()}
        super().on_load_checkpoint(trainer, tail, checkpoint | {"state_dict": averages})

    def _require_tail(self) -> "_Tail":
        assert self._tail is not None
        return self._tail


class _Tail(L.LightningModule):
    """A model's own layers and tensors without its frozen trunk.

    Args:
        model: Whose layers these are.
        device: Where it is trained.
    """

    def __init__(self, model: L.LightningModule, device: torch.device) -> None:
        super().__init__()
        assert isinstance(model, Classifier)
        for name, layer in model.named_children():
            # Metrics have neither, and are many modules to walk through at every step.
            if name != "trunk" and [*layer.parameters(), *layer.buffers()]:
                self.add_module(name, layer)
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in model.named_buffers(recurse=False):
            self.register_buffer(name, buffer, persistent=name in model.state_dict())
        self.target = device

    @property
    def device(self) -> torch.device:
        """Return where the model is trained, though it may not have been moved there yet."""
        return self.target
