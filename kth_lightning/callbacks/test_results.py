"""The callback that writes what a run is worth on the test images."""

import dataclasses
import math
import statistics

import lightning as L

from kth_lightning.callbacks.checkpoints import read_temperature
from kth_lightning.callbacks.history import History
from kth_lightning.callbacks.image_data import image_data
from kth_lightning.callbacks.judgement import environment, write_judgement
from kth_lightning.errors import InputError
from kth_lightning.evaluation.seen_images import Origin
from kth_lightning.evaluation.trust import trust_of
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models import Classifier
from kth_lightning.models.checkpoint import read_checkpoint


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
        if not trainer.is_global_zero:
            return
        model, data, history = pl_module, image_data(trainer), self.run.read_history()
        best = best_row(self.run, history, self.monitor)
        temperature = read_temperature(self.run.best_checkpoint)
        test = write_judgement(trainer, self.run, index, labels, logits, temperature)
        store = data.features("test")
        seconds = [row["seconds"] for row in history if math.isfinite(row["seconds"])]
        self.run.write_metrics(
            {
                "model": type(model).__name__,
                "val": {name.removeprefix("val/"): value for name, value in best.items() if name.startswith("val/")},
                "test": test,
                "trust": trust_of(
                    read_checkpoint(self.run.best_checkpoint),
                    labels.numpy(),
                    logits.double().softmax(1).numpy(),
                    data.catalogue.groups(index.tolist()),
                ),
                "temperature": temperature,
                "epochs": len(seconds),
                "best_epoch": int(best["epoch"]),
                "seconds_per_epoch": statistics.median(seconds[1:] or seconds),
                "seconds_first_epoch": seconds[0],
                "seconds_total": sum(seconds) + self.history.seconds_ahead,
                "parameters_trained": sum(item.numel() for item in model.parameters() if item.requires_grad),
                "feature_store": store.folder.name if store else None,
                "leakage": dataclasses.asdict(self.origin.leakage(data)) if self.origin else None,
            }
            | environment(trainer, self.run)
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
