"""The callback that keeps every epoch's figures."""

import time

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from kth_lightning.io.run_folder import RunFolder


class History(Checkpoint):
    """Write history.csv: a row an epoch, and one for each validation that the epoch goes on behind.

    It is a kind of checkpoint for Lightning, which calls those when the module has logged the epoch's figures.

    Args:
        run: The folder.

    Attributes:
        seconds_ahead: Time from the start of the command to the first step; 0 where nothing was trained.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.seconds_ahead = 0.0
        self._started = self._epoch_started = time.perf_counter()
        self._validated: dict[str, float] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget epochs that the checkpoint does not know."""
        self.seconds_ahead = time.perf_counter() - self._started
        self._validated = {}
        if trainer.is_global_zero:
            self.run.truncate_history(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._epoch_started = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take a validation's figures; they go into the epoch's row, unless training goes on within the epoch."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._write_validation(trainer)
            self._validated = _place(trainer) | _figures(trainer, "val/")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the epoch, before the weights are saved: the checkpoint to go on from always has its row."""
        row = _place(trainer)
        if self._validated.get("step") != row["step"]:
            self._write_validation(trainer)
        row |= {"seconds": time.perf_counter() - self._epoch_started, "lr": trainer.optimizers[0].param_groups[0]["lr"]}
        self._append(trainer, row | _figures(trainer, "train/") | self._validated)
        self._validated = {}

    def _write_validation(self, trainer: L.Trainer) -> None:
        if self._validated:
            self._append(trainer, self._validated)
            self._validated = {}

    def _append(self, trainer: L.Trainer, row: dict[str, float]) -> None:
        if trainer.is_global_zero:
            self.run.append_history(row)


def _place(trainer: L.Trainer) -> dict[str, float]:
    return {"epoch": trainer.current_epoch, "step": trainer.global_step}


def _figures(trainer: L.Trainer, part: str) -> dict[str, float]:
    return {name: float(value) for name, value in sorted(trainer.callback_metrics.items()) if name.startswith(part)}
