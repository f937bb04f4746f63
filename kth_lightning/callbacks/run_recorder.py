"""The callback that writes the run folder."""

import dataclasses
import platform
import statistics
import time
from importlib.metadata import version
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only

from kth_lightning.callbacks.checkpoints import complete_checkpoint, read_temperature
from kth_lightning.callbacks.test_explanations import draw_mistakes, measure_maps
from kth_lightning.data.module import ImageData
from kth_lightning.data.split_table import split_rows
from kth_lightning.drawing.attempt import attempt
from kth_lightning.errors import InputError
from kth_lightning.evaluation.calibration import apply_temperature, expected_calibration_error, fit_temperature
from kth_lightning.evaluation.seen_images import Origin, image_keys
from kth_lightning.evaluation.statistics import confusion_matrix, cross_entropies, summarise
from kth_lightning.io.run_folder import RunFolder, write_atomically
from kth_lightning.io.split_file import read_split, rows_digest, split_hashes, write_split
from kth_lightning.io.terminal import print_rank_zero
from kth_lightning.models import Classifier
from kth_lightning.report.page import write_report


class RunRecorder(Checkpoint):
    """Write what a run was made from, what every epoch gave, and what the best epoch is worth on the test images.

    It is a kind of checkpoint for Lightning, which calls those when the module has logged the epoch's figures.

    Args:
        run: The folder.
        config: Text of config.yaml.
        start: What start.json tells beside it.
        monitor: Name of the figure that is lowest in the best epoch.
        origin: What the run started from, where it is another run's checkpoint.
    """

    def __init__(
        self, run: RunFolder, config: str, start: dict[str, Any], monitor: str, origin: Origin | None = None
    ) -> None:
        self.run = run
        self.config = config
        self.start = start
        self.monitor = monitor
        self.origin = origin
        self.ahead_seconds = 0.0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write what the run is made from, before the first step, unless it has begun before."""
        if stage != "fit":
            return
        data = _data(trainer)
        rows = split_rows(data.catalogue, data.split)
        ours = rows_digest(rows)
        same = trainer.strategy.broadcast(ours) == ours
        if not trainer.strategy.reduce_boolean_decision(same, all=True):
            raise InputError(
                "the processes of this run do not see the same images: give all of them the same files under the same "
                "names, on a disk that they share"
            )
        if not trainer.is_global_zero:
            return
        self._started = time.perf_counter()
        device = _device_name(trainer)
        if self.run.config.exists():
            began_on = self.run.read_start().get("device", device)
            if began_on != device:
                print_rank_zero(
                    f"the run began on {began_on} and goes on on {device}: images, batches, order and epochs stay the "
                    "same, and the figures differ by rounding"
                )
            return
        if not self.run.splits.exists():
            write_split(rows, self.run.splits)
        self.run.write_start(self.start | {"device": device})
        # Last, since a folder with a configuration counts as a run.
        write_atomically(self.config, self.run.config)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep with the weights which images they were made from."""
        checkpoint["images"] = image_keys(_data(trainer))
        if self.origin is not None:
            checkpoint["inherited"] = self.origin.seen

    @rank_zero_only
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget epochs that the checkpoint does not know."""
        self.ahead_seconds = time.perf_counter() - self._started
        self.run.truncate_history(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._epoch_started = time.perf_counter()

    @rank_zero_only
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the epoch to the history, before the weights are saved: a checkpoint always has its row."""
        figures = {name: float(value) for name, value in trainer.logged_metrics.items() if name[:4] in ("val/", "trai")}
        row = {
            "epoch": trainer.current_epoch,
            "seconds": time.perf_counter() - self._epoch_started,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
        }
        self.run.append_history(row | dict(sorted(figures.items())))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Complete the best checkpoint, with a temperature fitted to its validation predictions."""
        if trainer.state.fn != TrainerFn.VALIDATING:
            return
        assert isinstance(pl_module, Classifier)
        _, labels, logits = pl_module.predictions("val")
        if trainer.is_global_zero:
            temperature = fit_temperature(labels.numpy(), logits.numpy())
            complete_checkpoint(self.run.best_checkpoint, pl_module, temperature)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the test predictions and the run's figures."""
        assert isinstance(pl_module, Classifier)
        index, labels, logits = pl_module.predictions("test")
        if trainer.is_global_zero:
            self._write_results(trainer, pl_module, index.tolist(), labels.numpy(), logits.double().softmax(1).numpy())

    def _write_results(
        self, trainer: L.Trainer, model: Classifier, index: list[int], labels: np.ndarray, probabilities: np.ndarray
    ) -> None:
        data, history = _data(trainer), self.run.read_history()
        if not history or not all(self.monitor in row for row in history):
            raise InputError(
                f"{self.run.history} is damaged; give another --run_dir, or delete {self.run.path} to train it again"
            )
        paths = [data.catalogue.images[item].path for item in index]
        self.run.write_predictions(paths, labels, data.class_names, probabilities)
        confusion = confusion_matrix(labels, probabilities.argmax(1), data.num_classes)
        self.run.write_confusion(confusion, data.class_names)
        temperature = read_temperature(self.run.best_checkpoint)
        test = _judge(labels, probabilities, temperature)
        best = min(history, key=lambda row: row[self.monitor])
        with attempt("the maps are not measured"), trainer.precision_plugin.forward_context():
            located = measure_maps(model, data, index, self.run)
            if located is not None:
                test["localisation"] = located
        seconds = [row["seconds"] for row in history]
        self.run.write_metrics(
            {
                "model": type(model).__name__,
                "val": {name.removeprefix("val/"): value for name, value in best.items() if name.startswith("val/")},
                "test": test,
                "temperature": temperature,
                "epochs": len(history),
                "best_epoch": int(best["epoch"]),
                "seconds_per_epoch": statistics.median(seconds[1:] or seconds),
                "seconds_first_epoch": seconds[0],
                "seconds_total": sum(seconds) + self.ahead_seconds,
                "parameters": sum(item.numel() for item in model.parameters()),
                "parameters_trained": sum(item.numel() for item in model.parameters() if item.requires_grad),
                "device": _device_name(trainer),
                "precision": str(trainer.precision),
                "versions": {
                    name: version(name) for name in ("torch", "torchvision", "lightning", "torchmetrics", "timm")
                },
                "seed": model.seed,
                "left_out": data.prepared.left_out,
                "value_range": data.value_range,
                "hashes": split_hashes(read_split(self.run.splits, "")) | {"weights": model.weights_sha256()},
                "leakage": dataclasses.asdict(self.origin.leakage(data)) if self.origin else None,
            }
        )
        # From here on the run is finished: what cannot be drawn costs a warning.
        with attempt(f"{self.run.mistakes} is not complete"), trainer.precision_plugin.forward_context():
            draw_mistakes(model, data, index, labels, probabilities, self.run)
        with attempt("the report is not written"):
            write_report(self.run.path)


def _data(trainer: L.Trainer) -> ImageData:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, ImageData)
    return data


def _judge(labels: np.ndarray, probabilities: np.ndarray, temperature: float) -> dict[str, Any]:
    """Measure predictions, as they are and as the temperature mends them."""
    calibrated = apply_temperature(probabilities, temperature)
    return summarise(labels, probabilities) | {
        "ece": expected_calibration_error(labels, probabilities),
        "ece_calibrated": expected_calibration_error(labels, calibrated),
        "loss_calibrated": float(cross_entropies(labels, calibrated).mean()),
    }


def _device_name(trainer: L.Trainer) -> str:
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} {device.type}"
    return f"{trainer.world_size} x {name}" if trainer.world_size > 1 else name
