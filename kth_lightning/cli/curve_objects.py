"""The command `learning_curve` for objects in Python."""

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from lightning import seed_everything

from kth_lightning.cli.fit import train
from kth_lightning.cli.learning_curve import draw_curve
from kth_lightning.cli.objects import Objects
from kth_lightning.data.module import ImageData
from kth_lightning.errors import InputError
from kth_lightning.io.curve_folder import CurveFolder
from kth_lightning.io.flat_settings import flat_settings
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models import Classifier


def learning_curve(
    make_model: Callable[[ImageData], Classifier],
    data: ImageData,
    run_dir: str | PathLike[str],
    *,
    sizes: int = 6,
    folds: int = 5,
    max_epochs: int = 100,
    patience: int = 10,
    ema_decay: float | None = None,
    **trainer: Any,
) -> dict[str, Any]:
    """Train on growing shares of the images, over folds, and say what more images would give.

    A repeated call goes on with an interrupted curve.

    Args:
        make_model: Makes a model for images: its number of classes, their names, their size and so on are theirs. It
            is called once a training, after the data's seed was set.
        data: The images, without a split of their own.
        run_dir: Folder to write.
        sizes: Number of shares, each half of the next.
        folds: Number of folds, over which every image is tested once at each size.
        max_epochs: The most epochs.
        patience: Number of epochs without a lower validation loss after which training stops.
        ema_decay: Decay of an exponential moving average of the weights, which is validated in their place.
        **trainer: Further arguments of Lightning's `Trainer`.

    Returns:
        What learning_curve.json has: "acc" and "loss", each with "predictions", and "classes", by falling gain.

    Raises:
        InputError: A setting or the data cannot be used, a training fails, or the folder holds another curve.
    """
    if data.splits is not None or data.num_folds is not None:
        raise InputError("learning_curve draws folds and shares itself; give ImageData neither splits nor num_folds")
    given = {"max_epochs": max_epochs, **trainer, "logger": False, "enable_progress_bar": False, "devices": 1}
    options = {"patience": patience, "ema_decay": ema_decay}

    def told(images: ImageData) -> tuple[Objects, dict[str, Any]]:
        seed_everything(images.seed, verbose=False)
        objects = Objects(make_model(images), images, given)
        return objects, objects.settings | options

    def train_into(run: RunFolder) -> None:
        images = ImageData(**data.arguments | {"splits": str(run.splits), "ignore_new": False})
        objects, settings = told(images)
        train({"subcommand": "fit", "fit": settings | {"run_dir": str(run.path)}}, objects, predictions_only=True)

    objects, settings = told(data)
    whole = flat_settings(objects.described_in(settings)) | {"sizes": sizes, "folds": folds}
    return draw_curve(CurveFolder(Path(run_dir)), data, train_into, whole, sizes, folds, data.ignore_new)
