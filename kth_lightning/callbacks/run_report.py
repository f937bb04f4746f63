"""The callback that writes the page of a finished run."""

import lightning as L
import torch

from kth_lightning.callbacks.image_data import image_data
from kth_lightning.callbacks.test_explanations import draw_mistakes
from kth_lightning.drawing.attempt import attempt
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models import Classifier
from kth_lightning.report.page import write_report


class RunReport(L.Callback):
    """Draw the most confident mistakes, and write report.html last; what cannot be drawn costs a warning.

    It stands behind the callback that writes the run's figures.

    Args:
        run: The folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw and write from one process."""
        assert isinstance(pl_module, Classifier)
        index, labels, logits = pl_module.predictions("test")
        if not trainer.is_global_zero:
            return
        probabilities = logits.double().softmax(1).numpy()
        with (
            attempt(f"{self.run.mistakes} is not complete"),
            torch.inference_mode(False),  # maps need gradients
            trainer.precision_plugin.forward_context(),
        ):
            draw_mistakes(pl_module, image_data(trainer), index.tolist(), labels.numpy(), probabilities, self.run)
        with attempt("the report is not written"):
            write_report(self.run.path)
