"""The callback that shows a run in TensorBoard."""

import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property, wraps
from typing import Any

import lightning as L
import numpy as np
import torch
import yaml
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image
from tensorboard.summary.writer.event_file_writer import _AsyncWriterThread
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from kth_lightning.callbacks.cam_snapshots import CamSnapshots, inputs_of
from kth_lightning.data.module import ImageData
from kth_lightning.drawing.attempt import attempt
from kth_lightning.drawing.figures import pixels
from kth_lightning.drawing.names import class_numbers, picture_names
from kth_lightning.errors import InputError
from kth_lightning.evaluation.statistics import confusion_matrix
from kth_lightning.explain.contact_sheet import COLUMNS, contact_sheet, resized, tiles
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models import Classifier
from kth_lightning.report.charts import confusion_figure
from kth_lightning.stores.store import CLEAN

_FIGURES = {
    "loss": "cross-entropy",
    "acc": "accuracy",
    "kappa": "Cohen's kappa",
    "recall": "mean recall of the classes",
}
_IMAGES = 8
_POINTS = 1000
_THUMBNAIL = 48
_BATCH = 32


def _harmless(show: Callable[..., None]) -> Callable[..., None]:
    """Have a failure to show something cost the run nothing."""

    @wraps(show)
    def harmless(*args: Any) -> None:
        with attempt(f"TensorBoard will lack the {show.__name__.removeprefix('_show_').replace('_', ' ')}"):
            show(*args)

    return harmless


class TensorBoardWriter(Checkpoint):
    """Write what TensorBoard shows into the run folder, from one process.

    Steps are epochs; a test figure stands at the best epoch. Lightning calls this kind of callback when the module has
    logged the epoch's figures.

    Args:
        run: The folder; the figures that are shown at the end are read from it.
        monitor: Name of the figure that is lowest in the best epoch.
    """

    def __init__(self, run: RunFolder, monitor: str) -> None:
        self.run = run
        self.monitor = monitor
        self._first_epoch: int | None = None
        self._last_epoch = -1
        self._watched: CamSnapshots | None = None

    @cached_property
    def _writer(self) -> SummaryWriter:
        _quiet_writers()
        return SummaryWriter(str(self.run.path), purge_step=self._first_epoch)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget epochs that the checkpoint does not know, and show the network and some images."""
        self._first_epoch = trainer.current_epoch
        if trainer.is_global_zero and trainer.current_epoch == 0:
            self._show_layout()
            self._show_class_numbers(trainer)
            self._show_examples(trainer)
            self._show_graph(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the epoch's figures and, ever more rarely, what the network looks at."""
        self._last_epoch = trainer.current_epoch
        if trainer.is_global_zero:
            self._show_curves(trainer)
            if (trainer.current_epoch + 1).bit_count() == 1:
                self._show_activation_maps(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show what the network looks at in the end."""
        if trainer.is_global_zero and (self._last_epoch + 1).bit_count() > 1:
            self._show_activation_maps(trainer, pl_module)
        self._watched = None

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show which validation images the best checkpoint mistakes for what."""
        if trainer.state.fn != TrainerFn.VALIDATING:
            return
        assert isinstance(pl_module, Classifier)
        _, labels, logits = pl_module.predictions("val")
        if trainer.is_global_zero:
            self._show_validation_confusion(pl_module.class_names, labels.numpy(), logits.argmax(1).numpy())

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show what the run is worth, once its folder is complete."""
        if trainer.is_global_zero:
            self._show_final_figures()
            self._show_test_confusion()
            self._show_embedding(trainer, pl_module)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close the file of events."""
        if stage == "test" and trainer.is_global_zero:
            self._show_last_events()

    @_harmless
    def _show_layout(self) -> None:
        charts = {
            title: ["Multiline", [f"{part}/{name}$" for part in ("train", "val", "test")]]
            for name, title in _FIGURES.items()
        }
        self._writer.add_custom_scalars({"training, validation and test": charts})

    @_harmless
    def _show_class_numbers(self, trainer: L.Trainer) -> None:
        if numbers := class_numbers(_data(trainer).class_names):
            lines = [f"- #{index} is {name}" for index, name in numbers.items()]
            self._writer.add_text("class numbers", "\n".join(["In the images:", "", *lines]))

    @_harmless
    def _show_examples(self, trainer: L.Trainer) -> None:
        data = _data(trainer)
        views = (data.views_of("train") or [0, 1, 2])[:3]
        index = _spread(data.split.indices("train"), _IMAGES if len(views) == 1 else COLUMNS)
        images = torch.cat([data.images(index, torch.full_like(index, view), torch.device("cpu")) for view in views])
        class_names = picture_names(data.class_names)
        names = [class_names[label] for label in data.labels[index]]
        captions = [name if view == CLEAN else f"{name}, view {view}" for view in views for name in names]
        self._writer.add_image("train/examples", contact_sheet(tiles(images), captions), 0, dataformats="HWC")

    @_harmless
    def _show_graph(self, trainer: L.Trainer, model: Classifier) -> None:
        data = _data(trainer)
        image = data.images(_spread(data.split.indices("train"), 1), torch.tensor([CLEAN]), model.device)
        with warnings.catch_warnings(), _looking(trainer, model):
            # Tracing warns of all that it will fix, and is deprecated; TensorBoard's graph has no other way.
            warnings.simplefilter("ignore")
            self._writer.add_graph(model, image)

    @_harmless
    def _show_curves(self, trainer: L.Trainer) -> None:
        figures = {name: float(value) for name, value in trainer.logged_metrics.items()}
        for number, group in enumerate(trainer.optimizers[0].param_groups):
            figures[f"train/lr_{number}" if number else "train/lr"] = group["lr"]
        for name, value in figures.items():
            self._writer.add_scalar(name, value, trainer.current_epoch)
        self._writer.flush()

    @_harmless
    def _show_activation_maps(self, trainer: L.Trainer, model: Classifier) -> None:
        with _looking(trainer, model):
            if self._watched is None:
                data = _data(trainer)
                index = _spread(data.split.indices("val"), _IMAGES)
                images = data.images(index, torch.full_like(index, CLEAN), model.device)
                self._watched = CamSnapshots(model, images, data.labels[index].to(model.device))
            try:
                sheet = self._watched.sheet()
            except InputError:  # a network without maps
                return
        self._writer.add_image("val/activation_maps", sheet, self._last_epoch, dataformats="HWC")

    @_harmless
    def _show_validation_confusion(self, names: list[str], labels: np.ndarray, predictions: np.ndarray) -> None:
        confusion = confusion_matrix(labels, predictions, len(names))
        best = min(self.run.read_history(), key=lambda row: row[self.monitor])
        figure = confusion_figure(confusion, picture_names(names))
        self._writer.add_image("val/confusion", pixels(figure), int(best["epoch"]), dataformats="HWC")

    @_harmless
    def _show_test_confusion(self) -> None:
        best = self.run.read_metrics()["best_epoch"]
        with Image.open(self.run.figures / "confusion.png") as image:
            self._writer.add_image("test/confusion", np.asarray(image.convert("RGB")), best, dataformats="HWC")

    @_harmless
    def _show_final_figures(self) -> None:
        metrics = self.run.read_metrics()
        final = {f"test/{name}": metrics["test"][name]["value"] for name in _FIGURES}
        final |= {f"val_best/{name}": metrics["val"][name] for name in _FIGURES}
        for name, value in final.items():
            if value is not None:
                self._writer.add_scalar(name, value, metrics["best_epoch"])
        settings = _settings(yaml.safe_load(self.run.config.read_text(encoding="utf-8")))
        # Without the first of the three summaries, TensorBoard makes its table from all the runs it sees and puts what
        # they differ in first; with it, the columns would be those of any one of them.
        for summary in hparams(settings, {})[1:]:
            self._writer._get_file_writer().add_summary(summary)

    @_harmless
    def _show_embedding(self, trainer: L.Trainer, model: Classifier) -> None:
        data, predicted = _data(trainer), self.run.read_predictions()
        chosen = _spread(np.arange(len(predicted.paths)), _POINTS).tolist()
        position = {image.path: number for number, image in enumerate(data.catalogue.images)}
        index = torch.tensor([position[predicted.paths[row]] for row in chosen])
        store, vectors, thumbnails = data.features("test"), [], []
        with _looking(trainer, model), inputs_of(model.head) as heads:
            for some in index.split(_BATCH):
                clean = torch.full_like(some, CLEAN)
                images = data.images(some, clean, model.device)
                thumbnails.append(resized(images, _THUMBNAIL).cpu() / 255)
                model.tail(model.features(images) if store is None else store.fetch(some, clean).to(model.device))
                vectors.append(heads.pop().float().cpu())
        names, metadata = predicted.class_names, []
        for row in chosen:
            label, guess = predicted.labels[row], predicted.probabilities[row].argmax()
            verdict, confidence = "right" if guess == label else "wrong", f"{predicted.probabilities[row, guess]:.3f}"
            texts = [names[label], names[guess], verdict, confidence, predicted.paths[row]]
            metadata.append([" ".join(text.split()) for text in texts])  # a line break would begin another row
        shutil.rmtree(self.run.path / "projector", ignore_errors=True)  # of a test that was repeated
        self._writer.add_embedding(
            torch.cat(vectors),
            metadata,
            torch.cat(thumbnails),
            global_step="projector",  # names the folder
            tag="test_features",
            metadata_header=["label", "prediction", "verdict", "confidence", "path"],
        )

    @_harmless
    def _show_last_events(self) -> None:
        self._writer.close()


@cache
def _quiet_writers() -> None:
    """Have TensorBoard's threads print no traceback of what they hand over to whoever writes next."""
    others = threading.excepthook

    def show(raised: threading.ExceptHookArgs) -> None:
        if not isinstance(raised.thread, _AsyncWriterThread):
            others(raised)

    threading.excepthook = show


@contextmanager
def _looking(trainer: L.Trainer, model: nn.Module) -> Iterator[None]:
    """Run a model as in evaluation, and leave it as it was."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            yield
    finally:
        model.train(training)


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """Choose what one compares runs by, under the same names for every model."""
    model, data = config["model"]["init_args"], config["data"]
    return {
        "model": config["model"]["class_path"].rpartition(".")[2],
        "backbone": model.get("backbone", "none"),
        "preprocessing": model.get("preprocessing", "blog"),
        "trained_stages": model.get("trained_stages", 0),
        "dropout": model["dropout"],
        "optimizer": model["optimizer"],
        "batch_size": data["batch_size"],
        **{name: model[name] for name in ("lr", "schedule", "warmup", "label_smoothing")},
        **{name: data[name] for name in ("image_size", "split_seed", "fold")},
        "augmentation": data["augmentation"]["class_path"]
        if isinstance(data["augmentation"], dict)
        else data["augmentation"],
        "views": "each epoch its own" if data["views"] is None else str(data["views"]),
        "balance": str(data["balance"]).lower(),
        "seed": config["seed_everything"],
        "precision": config["trainer"]["precision"],
    }


def _data(trainer: L.Trainer) -> ImageData:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, ImageData)
    return data


def _spread(index: np.ndarray, number: int) -> Tensor:
    """Choose images evenly from a list, which is sorted by class: int64 [at most `number`]."""
    return torch.from_numpy(index[np.linspace(0, len(index) - 1, min(number, len(index))).astype(int)])
