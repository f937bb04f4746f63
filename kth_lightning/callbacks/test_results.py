"""The callback that writes what a run is worth on the test images."""

import dataclasses
import math
import statistics
from importlib.metadata import version
from typing import Any

import lightning as L
import numpy as np
import torch

from kth_lightning.callbacks.checkpoints import read_temperature
from kth_lightning.callbacks.device_name import device_name
from kth_lightning.callbacks.history import History
from kth_lightning.callbacks.image_data import image_data
from kth_lightning.callbacks.test_explanations import measure_maps
from kth_lightning.drawing.attempt import attempt
from kth_lightning.errors import InputError
from kth_lightning.evaluation.calibration import apply_temperature, expected_calibration_error
from kth_lightning.evaluation.seen_images import Origin
from kth_lightning.evaluation.statistics import confusion_matrix, cross_entropies, summarise
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.split_file import read_split, split_hashes
from kth_lightning.models import Classifier


class TestResults(L.Callback):
    """Write the best checkpoint's test predictions and, behind them, metrics.json, with which a run is finished.

    Args:
        run: The folder.
        monitor: Name of the figure that is lowest in the best epoch.
        history: Of the run.
        origin: What the run started from, where it is another run's checkpoint.
    """

    __test__ = False  # no class of tests, whatever pytest makes of its name

    def __init__(self, run: RunFolder, monitor: str, history: History, origin: Origin | None = None) -> None:
        self.run = run
        self.monitor = monitor
        self.history = history
        self.origin = origin

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write them from one process."""
        assert isinstance(pl_module, Classifier)
        index, labels, logits = pl_module.predictions("test")
        if trainer.is_global_zero:
            further = pl_module.further_figures(logits, labels)
            probabilities = logits.double().softmax(1).numpy()
            self._write(trainer, pl_module, index.tolist(), labels.numpy(), probabilities, further)

    def _write(
        self,
        trainer: L.Trainer,
        model: Classifier,
        index: list[int],
        labels: np.ndarray,
        probabilities: np.ndarray,
        further: dict[str, float],
    ) -> None:
        data, history = image_data(trainer), self.run.read_history()
        best = best_row(self.run, history, self.monitor)
        paths = [data.catalogue.images[item].path for item in index]
        self.run.write_predictions(paths, labels, data.class_names, probabilities)
        self.run.write_confusion(confusion_matrix(labels, probabilities.argmax(1), data.num_classes), data.class_names)
        temperature = read_temperature(self.run.best_checkpoint)
        test = _judge(labels, probabilities, temperature)
        test |= {name: {"value": value, "low": None, "high": None} for name, value in further.items()}
        with (
            attempt("the activation maps are not evaluated"),
            torch.inference_mode(False),
            trainer.precision_plugin.forward_context(),
        ):
            located = measure_maps(model, data, index, self.run)
            if located is not None:
                test["localisation"] = located
        store = data.features("test")
        seconds = [row["seconds"] for row in history if math.isfinite(row["seconds"])]
        self.run.write_metrics(
            {
                "model": type(model).__name__,
                "val": {name.removeprefix("val/"): value for name, value in best.items() if name.startswith("val/")},
                "test": test,
                "temperature": temperature,
                "epochs": len(seconds),
                "best_epoch": int(best["epoch"]),
                "seconds_per_epoch": statistics.median(seconds[1:] or seconds),
                "seconds_first_epoch": seconds[0],
                "seconds_total": sum(seconds) + self.history.seconds_ahead,
                "parameters": sum(item.numel() for item in model.parameters()),
                "parameters_trained": sum(item.numel() for item in model.parameters() if item.requires_grad),
                "device": device_name(trainer),
                "precision": str(trainer.precision),
                "versions": {
                    name: version(name) for name in ("torch", "torchvision", "lightning", "torchmetrics", "timm")
                },
                "seed": model.seed,
                "left_out": data.prepared.left_out,
                "corrections": data.prepared.corrections.counts if data.prepared.corrections else None,
                "value_range": data.value_range,
                "feature_store": store.folder.name if store else None,
                "hashes": split_hashes(read_split(self.run.splits, "")) | {"weights": model.weights_sha256()},
                "leakage": dataclasses.asdict(self.origin.leakage(data)) if self.origin else None,
            }
        )


def best_row(run: RunFolder, history: list[dict[str, float]], monitor: str) -> dict[str, float]:
    """Return the row of a run's history with the best validation.

    Raises:
        InputError: The history is damaged.
    """
    validated = [row for row in history if math.isfinite(row.get(monitor, math.nan))]
    if not validated or not any(math.isfinite(row.get("seconds", math.nan)) for row in history):
        raise InputError(f"{run.history} is damaged; give another --run_dir, or delete {run.path} to train it again")
    return min(validated, key=lambda row: row[monitor])


def _judge(labels: np.ndarray, probabilities: np.ndarray, temperature: float) -> dict[str, Any]:
    """Measure predictions, as they are and as the temperature mends them."""
    calibrated = apply_temperature(probabilities, temperature)
    return summarise(labels, probabilities) | {
        "ece": expected_calibration_error(labels, probabilities),
        "ece_calibrated": expected_calibration_error(labels, calibrated),
        "loss_calibrated": float(cross_entropies(labels, calibrated).mean()),
    }
