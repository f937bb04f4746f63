"""Checkpoint files that are whole or not there."""

import errno
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from kth_lightning.models import Classifier


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


def complete_checkpoint(file: Path, model: Classifier, temperature: float) -> None:
    """Put trunk and temperature into the best checkpoint and take out what is for training: it alone predicts."""
    checkpoint = torch.load(file, weights_only=True, map_location="cpu")
    checkpoint["state_dict"] |= {key: value.cpu() for key, value in model.frozen_state().items()}
    checkpoint["hyper_parameters"]["temperature"] = temperature
    checkpoint["class_path"] = f"{type(model).__module__}.{type(model).__name__}"
    checkpoint["complete"] = True
    checkpoint["optimizer_states"] = checkpoint["lr_schedulers"] = []
    for key in ("current_model_state", "averaging_state"):
        checkpoint.pop(key, None)
    AtomicCheckpointIO().save_checkpoint(checkpoint, file)


def is_complete(file: Path) -> bool:
    """Tell whether training has ended and its best checkpoint was completed."""
    return file.exists() and _read(file).get("complete", False)


def read_temperature(file: Path) -> float:
    """Return the temperature of a completed checkpoint, 1 where it was completed without one."""
    return _read(file)["hyper_parameters"].get("temperature", 1.0)


def _read(file: Path) -> dict[str, Any]:
    return torch.load(file, weights_only=True, mmap=True, map_location="cpu")
