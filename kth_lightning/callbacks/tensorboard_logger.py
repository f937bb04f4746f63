"""TensorBoard in the run folder, as a logger of Lightning's."""

import threading
from collections.abc import Mapping
from functools import cache
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard.summary import hparams

from kth_lightning.io.run_folder import RunFolder


class RunTensorBoard(TensorBoardLogger):
    """Write events into the run folder itself, in one file for training, validation and test.

    Figures of an epoch stand at its number, unless it has several validations: then at the optimiser's steps.

    Args:
        run: The folder.
        by_epoch: Whether there is at most one validation an epoch.
        resumed_at: Epoch, or step, from which on earlier events are forgotten; None for nowhere.
    """

    def __init__(self, run: RunFolder, by_epoch: bool, resumed_at: int | None) -> None:
        super().__init__(run.path, name="", version="", purge_step=resumed_at)
        self.by_epoch = by_epoch
        _quiet_writers()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write figures; Lightning says the epoch with each."""
        if self.by_epoch and "epoch" in metrics:
            step = int(metrics["epoch"])
            metrics = {name: value for name, value in metrics.items() if name != "epoch"}
        super().log_metrics(metrics, step)

    @rank_zero_only
    def log_hyperparams(  # type: ignore[override]
        self, params: dict[str, Any], metrics: dict[str, Any] | None = None, step: int | None = None
    ) -> None:
        """Write settings, numbers and text, such that TensorBoard finds its table's columns in all runs."""
        # Without the first of the three summaries, TensorBoard makes its table from all the runs it sees and puts what
        # they differ in first; with it, the columns would be those of any one of them.
        for summary in hparams(params, {})[1:]:
            self.experiment.file_writer.add_summary(summary)

    @rank_zero_only
    def save(self) -> None:
        """Write what waits to be written, and no second file of settings."""
        self.experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what waits to be written; the file stays open, since validation and test follow training."""
        self.save()

    @rank_zero_only
    def close(self) -> None:
        """Close the file."""
        self.experiment.close()


@cache
def _quiet_writers() -> None:
    """Have TensorBoard's threads print no traceback of what they hand over to whoever writes next."""
    others = threading.excepthook

    def show(raised: threading.ExceptHookArgs) -> None:
        if not type(raised.thread).__module__.startswith("tensorboard."):
            others(raised)

    threading.excepthook = show
