"""The callback that averages weights over the steps of training."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from kth_lightning.errors import InputError
from kth_lightning.models import Classifier


class TailAveraging(L.Callback):
    """Exponential moving average of what is trained, which is validated and kept in place of the weights themselves.

    The average of the first steps is a plain one: step n counts at least 1 / n. Lightning's own callback would copy
    the frozen trunk and walk through it at every step, and make a GPU wait twice a step for torch's count of steps.

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
        self._weights: dict[str, Tensor] = {}
        self._averages: dict[str, Tensor] = {}
        self._resumed: dict[str, Tensor] | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with the weights as they are, which lie on their device by now, or with the average so far."""
        assert isinstance(pl_module, Classifier)
        self._weights = {
            name: item
            for name, item in pl_module.state_dict().items()
            if not name.startswith("trunk.") and _has_average(item)
        }
        self._averages = {name: item.clone() for name, item in self._weights.items()}
        if self._resumed is not None:
            _copy(self._resumed, self._averages)
            self._resumed = None

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Take the weights into the average, if the optimiser has made a step."""
        if trainer.global_step == self._steps:
            return
        self._steps = trainer.global_step
        update = get_ema_multi_avg_fn(1 - max(1 - self.decay, 1 / self._steps))
        update(list(self._averages.values()), list(self._weights.values()), None)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the average for as long as validation lasts."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._swap()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go back to the weights that are trained."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._swap()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the average in the model."""
        _copy(self._averages, self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps that the average has taken in."""
        return {"latest_update_step": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on behind the steps that the average has taken in."""
        self._steps = state_dict["latest_update_step"]

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the average as the checkpoint's weights, and those to go on from beside it."""
        if trainer.state.fn == TrainerFn.FITTING:
            whole = checkpoint["state_dict"]
            checkpoint["current_model_state"] = {name: whole[name] for name in self._averages}
            checkpoint["state_dict"] = whole | self._averages

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the average and with the weights behind it.

        Raises:
            InputError: The checkpoint has no average.
        """
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if "current_model_state" not in checkpoint:
            raise InputError(f"{trainer.ckpt_path} was written without --ema_decay; give another --run_dir")
        self._resumed = checkpoint["state_dict"]
        pl_module.load_state_dict(checkpoint["current_model_state"], strict=False)  # the trunk is there

    @torch.no_grad()
    def _swap(self) -> None:
        for name, average in self._averages.items():
            weight = self._weights[name].clone()
            self._weights[name].copy_(average)
            average.copy_(weight)


def _has_average(item: Tensor) -> bool:
    """Tell what is averaged from counts, which are those of the weights themselves, and masks of infinite numbers."""
    return (item.is_floating_point() or item.is_complex()) and bool(item.isfinite().all())


@torch.no_grad()
def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    for name, item in target.items():
        item.copy_(source[name])
