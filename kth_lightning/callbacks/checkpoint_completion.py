"""The callback that makes a run's best checkpoint complete."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn

from kth_lightning.callbacks.checkpoints import complete_checkpoint
from kth_lightning.callbacks.image_data import image_data
from kth_lightning.callbacks.training_summary import summarise_training
from kth_lightning.drawing.attempt import attempt
from kth_lightning.evaluation.calibration import fit_temperature
from kth_lightning.evaluation.validation_scores import keep_scores
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
        index, labels, logits = pl_module.predictions("val")
        data = image_data(trainer)
        stores = data.features("train"), data.features("val")  # which all processes ask for together
        if not trainer.is_global_zero:
            return
        extra: dict[str, Any] = {"validation": keep_scores(labels, logits, data.keys[index])}
        if boxed := sum(data.catalogue.images[item].box is not None for item in data.split.indices("train")):
            extra["boxed"] = boxed
        with (
            attempt("the checkpoint will not tell how novel an image is"),
            torch.inference_mode(),
            trainer.precision_plugin.forward_context(),
        ):
            novelty = summarise_training(pl_module, data, stores, index, logits)
            extra["novelty"] = novelty and novelty.summary()
        temperature = fit_temperature(labels.numpy(), logits.numpy())
        complete_checkpoint(self.run.best_checkpoint, pl_module, temperature, extra)
