"""One progress bar for a whole run."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm


class RunProgress(ProgressBar):
    """Show how much of the longest possible run is done, with the latest epoch's figures."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm | None = None
        self._enabled = True

    def disable(self) -> None:
        """Show nothing, as on all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar again."""
        self._enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar where the run stands."""
        steps = int(trainer.num_training_batches)
        epochs = trainer.max_epochs or -1
        self._bar = tqdm(
            total=steps * epochs if epochs > 0 else None,
            initial=steps * trainer.current_epoch,
            desc=f"training {type(pl_module).__name__}",
            unit="step",
            leave=False,
            disable=not self._enabled,
        )

    def on_train_batch_end(self, *_: Any) -> None:
        """Count a batch."""
        assert self._bar is not None
        self._bar.update()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the figures of the latest validation."""
        assert self._bar is not None
        known = [name for name in ("val/loss", "val/acc") if name in trainer.callback_metrics]
        figures = {"epoch": str(trainer.current_epoch)}
        figures |= {name: f"{float(trainer.callback_metrics[name]):.3f}" for name in known}
        self._bar.set_postfix(figures, refresh=False)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        assert self._bar is not None
        self._bar.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Clear the bar's line for what is said next."""
        if self._bar is not None:
            self._bar.close()
