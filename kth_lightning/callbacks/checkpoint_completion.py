"""The callback that makes a run's best checkpoint complete."""

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from kth_lightning.callbacks.checkpoints import complete_checkpoint
from kth_lightning.evaluation.calibration import fit_temperature
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models import Classifier


class CheckpointCompletion(L.Callback):
    """Fit the temperature to the best checkpoint's validation predictions, and put in what prediction needs.

    Args:
        run: The folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Complete the checkpoint that was validated."""
        if trainer.state.fn != TrainerFn.VALIDATING:
            return
        assert isinstance(pl_module, Classifier)
        _, labels, logits = pl_module.predictions("val")
        if trainer.is_global_zero:
            complete_checkpoint(self.run.best_checkpoint, pl_module, fit_temperature(labels.numpy(), logits.numpy()))
