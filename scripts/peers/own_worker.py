"""Take part in the benchmark with this package: `fit` as its command line runs it, with a callback that waits."""

import platform
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from turns import Turns, read_task

from kth_lightning.callbacks import feature_cache
from kth_lightning.callbacks.halved_batches import HalvedBatches
from kth_lightning.cli.fit import TrainingCLI
from kth_lightning.data.batch import Batch
from kth_lightning.models import Classifier


class TakeTurns(L.Callback):
    """Call the clock after every step, epoch or batch of extracted features.

    Args:
        task: What the benchmark wants measured.
    """

    def __init__(self, task: dict[str, Any]) -> None:
        self.task = task
        self.turns = Turns(torch.cuda.synchronize if torch.cuda.is_available() else lambda: None)
        self._counter: FlopCounterMode | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Have all features computed anew, where that is what is measured."""
        if self.task["case"] != "extraction":
            return
        assert isinstance(pl_module, Classifier)
        assert pl_module.trunk is not None
        trainer.datamodule.cache_dir = Path(self.task["folder"])  # type: ignore[attr-defined]
        feature_cache._BATCH = feature_cache._ACCELERATED_BATCH = self.task["batch_size"]
        with FlopCounterMode(display=False) as counter:
            pl_module.features(torch.zeros(1, 3, self.task["image_size"], self.task["image_size"]))
        self.turns.facts["flops"] = counter.get_total_flops()
        turns = self.turns

        class Counted(HalvedBatches):
            def __call__(self, *batch: Tensor) -> Tensor:
                features = super().__call__(*batch)
                turns.step(len(features))
                return features

        feature_cache.HalvedBatches = Counted  # type: ignore[misc]
        self._ready(trainer, sum(item.numel() for item in pl_module.trunk.parameters()))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Be ready to train."""
        self._ready(trainer, sum(item.numel() for item in pl_module.parameters() if item.requires_grad))

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the epoch that has ended, with all that belongs to it."""
        if self.task["unit"] == "batch":
            self.turns.resume()
        elif trainer.current_epoch:
            self.turns.step(self.task["train"])

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Count the operations of the first step."""
        if "flops" not in self.turns.facts:
            self._counter = FlopCounterMode(display=False)
            self._counter.__enter__()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        """Count a step; what comes between two epochs is no part of either."""
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self.turns.facts["flops"] = self._counter.get_total_flops() / batch["count"]
            self._counter = None
        if self.task["unit"] == "batch":
            self.turns.step(batch["count"])
            if trainer.is_last_batch:
                self.turns.pause()

    def _ready(self, trainer: L.Trainer, parameters: int) -> None:
        device = trainer.strategy.root_device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} {device.type}"
        self.turns.facts["precision"] = str(trainer.precision)
        self.turns.ready(parameters, name)


class Participant(TrainingCLI):
    """Carry out a command with one more callback, the last."""

    def __init__(self, task: dict[str, Any], held: ExitStack) -> None:
        self.task = task
        super().__init__(task["command"], held)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Add the callback to those of every run."""
        trainer = super().instantiate_trainer(**kwargs)
        trainer.callbacks.append(TakeTurns(self.task))  # type: ignore[attr-defined]
        return trainer


if __name__ == "__main__":
    with ExitStack() as run_lock:
        Participant(read_task(), run_lock)
