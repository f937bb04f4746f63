"""The callback that measures every epoch as the finished classifier will be used: calibrated."""

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback
from scipy.special import softmax

from kth_lightning.evaluation.calibration import fit_temperature
from kth_lightning.evaluation.statistics import cross_entropies
from kth_lightning.models import Classifier

CALIBRATED = "val/loss_calibrated"


class CalibratedLoss(Callback):
    """Log the validation loss after the temperature that suits the epoch.

    Mixup and label smoothing leave a network less sure than it should be, the more so the longer it trains; the loss
    before the temperature then rises where the network still learns.
    """

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Fit the temperature to the epoch's predictions, of all processes, and log what it leaves of the loss."""
        assert isinstance(pl_module, Classifier)
        _, labels, logits = (item.numpy() for item in pl_module.predictions("val"))
        calibrated = softmax(logits.astype(np.float64) / fit_temperature(labels, logits), axis=1)
        pl_module.log(CALIBRATED, float(cross_entropies(labels, calibrated).mean()))
