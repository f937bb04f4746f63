"""Early stopping that a resumed run remembers."""

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping


class ResumableEarlyStopping(EarlyStopping):
    """Stop when what is monitored falls no more; do not train on when a run is resumed where that had come.

    Args:
        monitor: Name of the figure.
        patience: Validations without a lower one until training stops.
    """

    def __init__(self, monitor: str, patience: int) -> None:
        super().__init__(monitor, patience=patience)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop before the first step."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True
