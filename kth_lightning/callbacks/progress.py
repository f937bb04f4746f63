"""One progress bar for a whole run."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar

from kth_lightning.io.progress import Progress


class RunProgress(ProgressBar):
    """Show how much of the longest possible run is done, with the latest epoch's figures."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Progress | None = None
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
        self._bar = Progress(
            name="training",
            detail=type(pl_module).__name__,
            total=steps * epochs if epochs > 0 else None,
            unit="steps",
            initial=steps * trainer.current_epoch,
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
        figures = [f"epoch {trainer.current_epoch + 1}"]
        figures[0] += f" of at most {trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
        figures += [f"{name} {float(trainer.callback_metrics[name]):.3f}" for name in known]
        self._bar.set_postfix_str(", ".join(figures), refresh=False)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        assert self._bar is not None
        self._bar.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Clear the bar's line for what is said next."""
        if self._bar is not None:
            self._bar.close()
