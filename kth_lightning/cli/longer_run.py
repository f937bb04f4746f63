"""A run that begins where another of the same settings and another length ended."""

import shutil
from collections.abc import Mapping
from typing import Any

import torch

from kth_lightning.callbacks.checkpoints import AtomicCheckpointIO, has_checkpoint
from kth_lightning.cli.same_run import Begun
from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.run_lock import locked
from kth_lightning.models.checkpoint import read_checkpoint


def read_shorter(run: RunFolder) -> Begun:
    """Read the run that another one begins with.

    Raises:
        InputError: There is no such run.
    """
    begun = Begun.read(run)
    if begun is None or not has_checkpoint(run.last_checkpoint):
        raise InputError(f"--continue_from {run.path}: there is no run that has trained an epoch; give its folder")
    return begun


def continue_from(shorter: Begun, run: RunFolder, asked: Mapping[str, Any]) -> None:
    """Have a run begin where another one ended, as if it had had its own length from the first epoch.

    Args:
        shorter: What it begins with, which is left as it is.
        run: Where the new run is to be, which has not begun.
        asked: The settings of the new run, flat.

    Raises:
        InputError: The settings differ in more than their length, or the learning rate follows it.
    """
    old = shorter.run
    shorter.require(asked, "--continue_from", but="trainer.max_epochs")
    if read_checkpoint(old.last_checkpoint)["lr_schedulers"]:
        raise InputError(
            f"--continue_from {old.path}: its learning rate depends on its length, so a longer run differs from "
            "the first epoch on; leave the flag out"
        )
    with locked(old.path):
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        for file, copy in (
            (old.splits, run.splits),
            (old.history, run.history),
            (old.last_checkpoint, run.last_checkpoint),
        ):
            shutil.copyfile(file, copy)
        best = torch.load(old.best_checkpoint, weights_only=True, map_location="cpu")
        best.pop("complete", None)  # it may not stay the best
        AtomicCheckpointIO().save_checkpoint(best, run.best_checkpoint)
