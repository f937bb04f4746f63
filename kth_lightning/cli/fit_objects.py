"""The command `fit` for objects in Python."""

from os import PathLike
from pathlib import Path
from typing import Any, Literal

from kth_lightning.cli.fit import train
from kth_lightning.cli.objects import Objects
from kth_lightning.data.module import ImageData
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models import Classifier


def fit(
    model: Classifier,
    data: ImageData,
    run_dir: str | PathLike[str],
    *,
    max_epochs: int = 100,
    monitor: Literal["val/loss", "val/loss_calibrated"] = "val/loss",
    patience: int = 10,
    ema_decay: float | None = None,
    ignore_new: bool = False,
    continue_from: str | PathLike[str] | None = None,
    **trainer: Any,
) -> RunFolder:
    """Train a model into a run folder, then test its best checkpoint, as the command `fit` does.

    A repeated call goes on with an interrupted run and leaves a finished one as it is. Everything that is random in
    training follows the data's seed; the model's first weights are those that it comes with.

    Args:
        model: Made for the images: its number of classes, their names, the size of the images and so on are theirs.
        data: The images.
        run_dir: Run folder to write.
        max_epochs: The most epochs.
        monitor: Validation figure that is lowest in the best epoch.
        patience: Number of epochs without a lower one after which training stops.
        ema_decay: Decay of an exponential moving average of the weights, which is validated and kept in their place.
        ignore_new: Leave out images that a run did not begin with.
        continue_from: Run folder of the same settings and another length, to begin where that run ended.
        **trainer: Further arguments of Lightning's `Trainer`.

    Returns:
        The run folder, to which `fast_dev_run` writes nothing; `Predictor(run.best_checkpoint)` predicts, and
        `run.read_metrics()` has the figures.

    Raises:
        InputError: A setting, the data or the weights cannot be used, or the folder holds another run.
    """
    objects = Objects(model, data, {"max_epochs": max_epochs, **trainer})
    settings = objects.settings | {
        "run_dir": str(run_dir),
        "continue_from": None if continue_from is None else str(continue_from),
        "monitor": monitor,
        "patience": patience,
        "ema_decay": ema_decay,
    }
    settings["data"]["ignore_new"] = ignore_new or data.ignore_new
    return train({"subcommand": "fit", "fit": settings}, objects) or RunFolder(Path(run_dir))
