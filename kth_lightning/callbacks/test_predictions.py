"""The callback that keeps what a trained model says of the test images, and nothing else."""

import lightning as L

from kth_lightning.callbacks.image_data import image_data
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models import Classifier


class TestPredictions(L.Callback):
    """Write predictions.csv.

    Args:
        run: The folder.
    """

    __test__ = False  # no class of tests, whatever pytest makes of its name

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write it from one process."""
        assert isinstance(pl_module, Classifier)
        index, labels, logits = pl_module.predictions("test")
        if trainer.is_global_zero:
            data = image_data(trainer)
            images = [data.catalogue.images[item] for item in index.tolist()]
            self.run.write_predictions(
                [image.path for image in images],
                labels.numpy(),
                data.class_names,
                logits.double().softmax(1).numpy(),
                [image.group for image in images],
            )
