"""Checkpoint files that are whole or not there."""

import errno
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from kth_lightning.errors import InputError
from kth_lightning.models import Classifier
from kth_lightning.models.checkpoint import read_checkpoint

SAVE_EVERY = 10.0
"""Seconds of training that a kill may cost beside those of the running epoch."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints beside their place and rename them.

    Lightning's own leaves half a file after a full disk or a kill, in place of the last good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint, or leave what was there.

        Raises:
            OSError: The disk is full.
        """
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.part")
        try:
            with temporary.open("wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(file)
        except RuntimeError as error:  # how torch reports that its stream could not be written
            raise OSError(errno.ENOSPC, str(error), str(file)) from None
        finally:
            temporary.unlink(missing_ok=True)


class BestCheckpoint(ModelCheckpoint):
    """Keep the best epoch, also in a run folder that was moved since.

    Lightning's own forgets the best figure so far where its folder has another path: the first epoch after an
    interruption would then count as the best.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was best so far, at the place where the run folder is now."""
        assert self.dirpath is not None
        here = Path(self.dirpath)

        def moved(path: str) -> str:
            return str(here / Path(path).name) if path else path

        paths = {name: moved(value) for name, value in state_dict.items() if name.endswith("_model_path")}
        best = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath})


class LastCheckpoint(Checkpoint):
    """Save where training stands, to go on from there.

    Lightning's `save_last` writes when the best checkpoint is written: a run that is killed long after its best epoch
    would train all epochs since again. Writing after every epoch would take longer than a short epoch itself.

    Args:
        file: The checkpoint.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._saved = -math.inf

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save after the first epoch, after the last, and after any other where the latest save is long ago."""
        ended = trainer.current_epoch + 1 == trainer.max_epochs or trainer.global_step == trainer.max_steps
        last = trainer.should_stop or ended
        due = last or time.monotonic() - self._saved >= SAVE_EVERY
        if trainer.strategy.broadcast(due):
            trainer.save_checkpoint(self.file)
            self._saved = time.monotonic()


def complete_checkpoint(file: Path, model: Classifier, temperature: float, extra: Mapping[str, Any]) -> None:
    """Put what prediction needs into the best checkpoint, and take out what is for training.

    Args:
        file: The checkpoint.
        model: Its model.
        temperature: Fitted on the validation images.
        extra: What else prediction takes from it, by name.
    """
    checkpoint = torch.load(file, weights_only=True, map_location="cpu")
    checkpoint["state_dict"] |= {key: value.cpu() for key, value in model.frozen_state().items()}
    checkpoint["hyper_parameters"]["temperature"] = temperature
    checkpoint |= extra
    checkpoint["complete"] = True
    checkpoint["optimizer_states"] = checkpoint["lr_schedulers"] = []
    checkpoint["callbacks"] = {}
    checkpoint.pop("current_model_state", None)
    AtomicCheckpointIO().save_checkpoint(checkpoint, file)


def has_checkpoint(file: Path) -> bool:
    """Tell whether a run has a checkpoint.

    Raises:
        InputError: It is damaged.
    """
    return file.exists() and bool(_read(file))


def is_complete(file: Path) -> bool:
    """Tell whether training has ended and its best checkpoint was completed.

    Raises:
        InputError: It is damaged.
    """
    return file.exists() and _read(file).get("complete", False)


def read_temperature(file: Path) -> float:
    """Return the temperature of a completed checkpoint, 1 where it was completed without one."""
    return _read(file)["hyper_parameters"].get("temperature", 1.0)


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_checkpoint(file)
    except InputError:
        raise InputError(f"{file} is damaged; give another --run_dir, or delete its run to train it again") from None
