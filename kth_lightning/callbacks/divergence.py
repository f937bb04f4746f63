"""The callback that says in plain words when training goes wrong."""

import math
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from scipy.stats import binomtest
from torch import Tensor

from kth_lightning.callbacks.image_data import image_data
from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models import Classifier

LOOK_EVERY = 50
"""Steps between two looks at the losses, each of which makes a GPU wait."""

_NAMED = 3
_LEARNT = 0.9
_ENOUGH = 5


class DivergenceMonitor(Checkpoint):
    """Stop before weights that are no numbers are kept, and warn of what makes training worthless.

    It is a kind of checkpoint for Lightning, which calls those when the module has logged the epoch's figures, and
    stands before the one that saves.

    Args:
        run: The folder, to name its last good checkpoint.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._looked = 0
        self._lowest = self._best = math.inf
        self._said: set[str] = set()

    def state_dict(self) -> dict[str, Any]:
        """Return the lowest losses so far, which a resumed run goes on from."""
        return {"lowest": self._lowest, "best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the lowest losses so far."""
        self._lowest, self._best = state_dict["lowest"], state_dict["best"]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with the first step."""
        self._looked = 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Look at the latest steps together.

        Raises:
            InputError: A loss is not finite.
        """
        if (batch_idx + 1) % LOOK_EVERY and not trainer.is_last_batch:
            return
        assert isinstance(pl_module, Classifier)
        index, losses = pl_module.training_losses()
        fault = _first_fault(index[self._looked :], losses[self._looked :])
        faults = trainer.strategy.all_gather(fault.to(pl_module.device)).view(-1, len(fault)).tolist()
        step = min(item[0] for item in faults)
        if step < len(losses):
            images = [position for item in faults if item[0] == step for position in item[1:] if position >= 0]
            self._stop(trainer, f"the training loss at step {self._looked + step} of", images)
        self._looked = len(losses)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the figures of a validation.

        Raises:
            InputError: The loss is not finite.
        """
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            loss = float(trainer.callback_metrics["val/loss"])
            if not math.isfinite(loss):
                self._stop(trainer, "the validation loss of", [])
            self._best = min(self._best, loss)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the epoch's figures.

        Raises:
            InputError: The training loss is not finite.
        """
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        data, loss = image_data(trainer), figures["train/loss"]
        if not math.isfinite(loss):
            self._stop(trainer, "the training loss of", [])
        self._lowest = min(self._lowest, loss)
        if loss > max(2 * self._lowest, math.log(data.num_classes)):
            self._warn(
                f"the training loss has risen from {self._lowest:.3g} to {loss:.3g}: training diverges; give a lower "
                f"--model.optimizer.lr, such as {_rate(trainer) / 10:.2g}"
            )
        labels = data.labels[data.split.indices("val")].numpy()
        chance, accuracy = np.bincount(labels).max() / len(labels), figures.get("val/acc", 1.0)
        if figures["train/acc"] > _LEARNT and _no_better(accuracy, len(labels), chance):
            self._warn(
                f"the training images are learnt ({figures['train/acc']:.0%}), but the validation accuracy "
                f"({accuracy:.0%}) is not clearly better than always naming the most frequent class: are the labels "
                "of both right, and do both show the same kind of images?"
            )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at what was learnt."""
        guessing = math.log(image_data(trainer).num_classes)
        if trainer.current_epoch >= _ENOUGH and self._best > guessing:
            self._warn(
                f"in {trainer.current_epoch} epochs the validation loss never fell below that of guessing "
                f"({self._best:.3g} against {guessing:.3g}): nothing was learnt; give another --model.optimizer.lr "
                f"than {_rate(trainer):.2g}"
            )

    def _stop(self, trainer: L.Trainer, what: str, images: list[int]) -> None:
        paths = [repr(image_data(trainer).catalogue.images[position].name) for position in images[:_NAMED]]
        on = f", first on {', '.join(paths)}" if paths else ""
        last = self.run.last_checkpoint
        kept = f"; the last good weights are in {last}" if last.exists() else ""
        raise InputError(
            f"{what} epoch {trainer.current_epoch} is not a finite number{on}: give a lower --model.optimizer.lr, or "
            f"--trainer.gradient_clip_val 1, and another --run_dir{kept}"
        )

    def _warn(self, sentence: str) -> None:
        kind = sentence.partition(":")[2]
        if kind not in self._said:
            self._said.add(kind)
            rank_zero_warn(sentence)


def _first_fault(index: list[Tensor], losses: list[Tensor]) -> Tensor:
    """Return the first step with a loss that is not finite, and some places of its images, filled up with -1."""
    sizes = [len(item) for item in losses]
    bad = torch.cat(losses).isfinite().logical_not().cpu()
    fault = torch.full((1 + _NAMED,), -1)
    if not bad.any():
        fault[0] = torch.iinfo(torch.int64).max
        return fault
    steps = [int(part.any()) for part in bad.split(sizes)]
    fault[0] = step = steps.index(1)
    positions = index[step].cpu()[bad.split(sizes)[step]][:_NAMED]
    fault[1 : 1 + len(positions)] = positions
    return fault


def _rate(trainer: L.Trainer) -> float:
    group = trainer.optimizers[0].param_groups[0]
    return group.get("initial_lr", group["lr"])


def _no_better(accuracy: float, number: int, chance: float) -> bool:
    if accuracy == 1:  # of few images, which prove nothing
        return False
    return chance < 1 and binomtest(round(accuracy * number), number, chance, alternative="greater").pvalue > 0.05
