"""The callback that gives loggers what Lightning does not by itself."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.loggers import Logger

from kth_lightning.callbacks.test_results import best_row
from kth_lightning.io.flat_settings import told_settings
from kth_lightning.io.run_folder import RunFolder

FIGURES = {
    "loss": "cross-entropy",
    "acc": "accuracy",
    "kappa": "Cohen's kappa",
    "recall": "mean recall of the classes",
}
"""Figures of every part of the split, with their titles."""


class LoggedFigures(L.Callback):
    """Give loggers a run's settings, its learning rates, and in the end the figures of its best epoch.

    The figures of the epochs they get from Lightning.

    Args:
        run: The folder; what it holds is logged.
        monitor: Name of the figure that is lowest in the best epoch.
        loggers: Of the run.
    """

    def __init__(self, run: RunFolder, monitor: str, loggers: Sequence[Logger]) -> None:
        self.run = run
        self.monitor = monitor
        self.loggers = loggers

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the settings."""
        settings = _settings(yaml.safe_load(self.run.config.read_text(encoding="utf-8")))
        for logger in self.loggers:
            logger.log_hyperparams(settings)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the learning rates."""
        rates: dict[str, float] = {"epoch": trainer.current_epoch}
        for number, group in enumerate(trainer.optimizers[0].param_groups):
            rates[f"train/lr_{number}" if number else "train/lr"] = group["lr"]
        for logger in self.loggers:
            logger.log_metrics(rates, trainer.global_step - 1)  # as Lightning counts the steps of figures

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give what the run is worth, at the best epoch."""
        if not trainer.is_global_zero:
            return
        metrics = self.run.read_metrics()
        best = best_row(self.run, self.run.read_history(), self.monitor)
        final = {f"test/{name}": metrics["test"][name]["value"] for name in FIGURES}
        final |= {f"val_best/{name}": metrics["val"][name] for name in FIGURES}
        known = {name: value for name, value in final.items() if value is not None}
        for logger in self.loggers:
            logger.log_metrics(known | {"epoch": best["epoch"]}, int(best["step"]))
            logger.save()


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """Choose what one compares runs by: numbers, and all else as text."""
    data = config["data"]
    own = isinstance(data["augmentation"], dict)
    settings: dict[str, Any] = {"model": config["model"]["class_path"].rpartition(".")[2]}
    settings |= {
        name: value
        for name, value in told_settings(config["model"].get("init_args", {})).items()
        if name not in ("weights_sha256", "init_head_from")
    }
    settings |= {name: data[name] for name in ("batch_size", "image_size", "split_seed", "fold")}
    settings |= {
        "augmentation": data["augmentation"]["class_path"] if own else data["augmentation"],
        "views": "new in every epoch" if data["views"] is None else str(data["views"]),
        "balance": data["balance"],
        "seed": config["seed_everything"],
        "precision": config["trainer"]["precision"],
    }
    return {
        name: value if isinstance(value, bool | int | float) else str(value)
        for name, value in settings.items()
        if value is not None
    }
