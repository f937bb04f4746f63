"""A callback that ends a run whose steps make the host wait for the GPU."""

from typing import Any

import lightning as L
import torch

SKIPPED = 2
"""First steps, in which kernels are chosen, and the optimiser makes its state."""


class NoWaiting(L.Callback):
    """Refuse every wait from one step's beginning to the next one's.

    The last step of an epoch is left out: all losses of the epoch are looked at behind it.

    Attributes:
        watched: How many steps were looked at, in all runs.
    """

    watched = 0

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        watch = trainer.global_step >= SKIPPED and not trainer.is_last_batch
        torch.cuda.set_sync_debug_mode("error" if watch else "default")
        NoWaiting.watched += watch
