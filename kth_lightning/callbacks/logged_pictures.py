"""The callback that shows loggers pictures of a run."""

from collections.abc import Sequence

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image

from kth_lightning.callbacks.as_in_evaluation import as_in_evaluation
from kth_lightning.callbacks.cam_snapshots import CamSnapshots
from kth_lightning.callbacks.image_data import image_data, spread
from kth_lightning.callbacks.test_results import best_row
from kth_lightning.drawing.attempt import attempt
from kth_lightning.drawing.figures import pixels
from kth_lightning.drawing.names import picture_names
from kth_lightning.errors import InputError
from kth_lightning.evaluation.statistics import confusion_matrix
from kth_lightning.explain.contact_sheet import COLUMNS, contact_sheet, tiles
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models import Classifier
from kth_lightning.report.charts import confusion_figure
from kth_lightning.stores.store import CLEAN

_IMAGES = 8


class LoggedPictures(L.Callback):
    """Show training images, ever more rarely what the network looks at, and what it mistakes for what.

    Args:
        run: The folder; what it holds in the end is drawn.
        monitor: Name of the figure that is lowest in the best epoch.
        loggers: Of the run; those that take no pictures get none.
    """

    def __init__(self, run: RunFolder, monitor: str, loggers: Sequence[Logger]) -> None:
        self.run = run
        self.monitor = monitor
        self.loggers = loggers
        self._last_epoch = -1
        self._watched: CamSnapshots | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show training images in their views."""
        if trainer.current_epoch or not self._takers(trainer):
            return
        with attempt("the loggers will lack the examples"):
            data = image_data(trainer)
            views = (data.views_of("train") or [0, 1, 2])[:3]
            index = spread(data.split.indices("train"), _IMAGES if len(views) == 1 else COLUMNS)
            cpu = torch.device("cpu")
            images = torch.cat([data.images(index, torch.full_like(index, view), cpu) for view in views])
            class_names = picture_names(data.class_names)
            names = [class_names[label] for label in data.labels[index]]
            captions = [name if view == CLEAN else f"{name}, view {view}" for view in views for name in names]
            self._show("train/examples", contact_sheet(tiles(images), captions), 0, trainer.global_step)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show what the network looks at, after 1, 2, 4, 8 ... epochs."""
        self._last_epoch = trainer.current_epoch
        if (trainer.current_epoch + 1).bit_count() == 1:
            self._show_activation_maps(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show what the network looks at in the end."""
        if (self._last_epoch + 1).bit_count() > 1:
            self._show_activation_maps(trainer, pl_module)
        self._watched = None

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show which validation images the best checkpoint mistakes for what."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._show_confusion("val", trainer, pl_module)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show which test images it mistakes for what."""
        self._show_confusion("test", trainer, pl_module)

    def _show_activation_maps(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        assert isinstance(model, Classifier)
        if not self._takers(trainer):
            return
        with attempt("the loggers will lack the activation maps"), as_in_evaluation(trainer, model):
            if self._watched is None:
                data = image_data(trainer)
                index = spread(data.split.indices("val"), _IMAGES)
                images = data.images(index, torch.full_like(index, CLEAN), model.device)
                self._watched = CamSnapshots(model, images, data.labels[index].to(model.device))
            try:
                sheet = self._watched.sheet()
            except InputError:  # a network without maps
                return
            self._show("val/activation_maps", sheet, self._last_epoch, trainer.global_step)

    def _show_confusion(self, part: str, trainer: L.Trainer, model: L.LightningModule) -> None:
        assert isinstance(model, Classifier)
        _, labels, logits = model.predictions("val" if part == "val" else "test")
        if not self._takers(trainer):
            return
        with attempt(f"the loggers will lack the confusion matrix of {part}"):
            confusion = confusion_matrix(labels.numpy(), logits.argmax(1).numpy(), len(model.class_names))
            best = best_row(self.run, self.run.read_history(), self.monitor)
            figure = confusion_figure(confusion, picture_names(model.class_names))
            self._show(f"{part}/confusion", pixels(figure), int(best["epoch"]), int(best["step"]))

    def _takers(self, trainer: L.Trainer) -> list[Logger]:
        return [logger for logger in self.loggers if trainer.is_global_zero and _takes_pictures(logger)]

    def _show(self, name: str, picture: np.ndarray, epoch: int, step: int) -> None:
        for logger in filter(_takes_pictures, self.loggers):
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(name, picture, epoch, dataformats="HWC")
            elif isinstance(logger, MLFlowLogger):
                logger.experiment.log_image(logger.run_id, picture, artifact_file=f"{name}/epoch-{epoch:04d}.png")
            else:
                logger.log_image(name, [Image.fromarray(picture)], step=step)  # type: ignore[attr-defined]


def _takes_pictures(logger: Logger) -> bool:
    # W&B's and others' have this method, of the same arguments.
    return isinstance(logger, TensorBoardLogger | MLFlowLogger) or hasattr(logger, "log_image")
