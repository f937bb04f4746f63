"""What fills the run folder of a run that trains."""

from collections.abc import Iterable
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger

from kth_lightning.callbacks.checkpoint_completion import CheckpointCompletion
from kth_lightning.callbacks.checkpoints import BestCheckpoint, LastCheckpoint, has_checkpoint, is_complete
from kth_lightning.callbacks.divergence import DivergenceMonitor
from kth_lightning.callbacks.early_stopping import ResumableEarlyStopping
from kth_lightning.callbacks.harmless_logger import forgive
from kth_lightning.callbacks.history import History
from kth_lightning.callbacks.logged_figures import LoggedFigures
from kth_lightning.callbacks.logged_pictures import LoggedPictures
from kth_lightning.callbacks.run_inputs import RunInputs
from kth_lightning.callbacks.run_report import RunReport
from kth_lightning.callbacks.tensorboard_logger import RunTensorBoard
from kth_lightning.callbacks.tensorboard_views import TensorBoardViews
from kth_lightning.callbacks.test_results import TestResults
from kth_lightning.errors import InputError
from kth_lightning.evaluation.seen_images import Origin
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models.checkpoint import read_checkpoint


class Recording:
    """Loggers and callbacks that fill a run folder.

    Args:
        run: The folder.
        inputs: What writes down what the run is made from.
        origin: What the run starts from, where it is another run's checkpoint.
        monitor: Name of the validation figure that is lowest in the best epoch.
        patience: Number of validations without a lower one after which training stops.
        logger: As the trainer was given it.
        by_epoch: Whether every epoch ends in its validation.

    Attributes:
        loggers: The run folder's TensorBoard and those that were given; none where logging is turned off.
        callbacks: Of training.
        completion: Callback of the best checkpoint's validation.
        results: Callback of its test.
        report: Callback of its test, behind all others.

    Raises:
        InputError: A logger cannot be opened.
    """

    def __init__(
        self,
        run: RunFolder,
        inputs: RunInputs,
        origin: Origin | None,
        monitor: str,
        patience: int,
        logger: Any,
        by_epoch: bool,
    ) -> None:
        self.run = run
        self.loggers: list[Logger] = []
        views: list[L.Callback] = []
        if logger is not False:
            board = RunTensorBoard(run, by_epoch, _resumed_at(run, by_epoch))
            self.loggers = [forgive(item) for item in (board, *_opened(logger))]
            views = [
                LoggedFigures(run, monitor, self.loggers),
                LoggedPictures(run, monitor, self.loggers),
                TensorBoardViews(run, board),
            ]
        history = History(run)
        self.completion = CheckpointCompletion(run)
        self.results = TestResults(run, monitor, history, origin)
        self.report = RunReport(run)
        self.callbacks: list[L.Callback] = [
            DivergenceMonitor(run),
            inputs,
            history,
            *views,
            ResumableEarlyStopping(monitor, patience),
            BestCheckpoint(
                dirpath=str(run.checkpoints),
                filename="best",
                monitor=monitor,
                auto_insert_metric_name=False,
                enable_version_counter=False,
            ),
            LastCheckpoint(run.last_checkpoint),
        ]


def listed(given: Any) -> list[Any]:
    """Return one of the trainer's flags that takes one object, or several, as a list."""
    if given is None:
        return []
    return list(given) if isinstance(given, Iterable) else [given]


def _resumed_at(run: RunFolder, by_epoch: bool) -> int | None:
    """Return the epoch or step from which a run logs; None where it has logged all of them."""
    if is_complete(run.best_checkpoint):
        return None
    if not has_checkpoint(run.last_checkpoint):
        return 0
    last = read_checkpoint(run.last_checkpoint)
    return last["epoch"] + 1 if by_epoch else last["global_step"]


def _opened(given: Any) -> list[Logger]:
    """List the loggers that were given, each opened."""
    others = [] if given is True else listed(given)
    for logger in others:
        try:
            getattr(logger, "experiment", None)
        except Exception as error:  # whatever a logger stumbles over
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise InputError(
                f"--trainer.logger: {type(logger).__name__} cannot be opened ({reason}); correct its settings, or "
                "leave it out"
            ) from None
    return others
