"""The loop over an epoch's batches, whose step does what a step of these models needs and no more."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer import call
from torch import Tensor

from kth_lightning.callbacks.idle_hooks import NoProfiler, is_idle
from kth_lightning.data.batch import Batch
from kth_lightning.data.module import ImageData
from kth_lightning.models import Classifier

_OWN_HOOKS = (
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
    "on_train_batch_start",
    "on_train_batch_end",
    "optimizer_step",
    "optimizer_zero_grad",
    "on_before_zero_grad",
    "backward",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "configure_gradient_clipping",
)
_CALLBACK_HOOKS = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")


class ShortEpochLoop(_TrainingEpochLoop):
    """Train as Lightning's loop does, to the last bit, without what a plain step has no use for.

    Lightning's step makes room for gradients that are gathered, clipped, scaled or averaged over processes, for a
    profiler and for a model's own hooks; of a small head's epoch that is a fifth. Where any of it is asked for,
    Lightning's step it is.
    """

    _short = False

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        """Find out whether the epoch's steps can be short."""
        super().on_run_start(data_fetcher)
        self._short = _is_plain(self.trainer)
        self._trained = [item for group in self.trainer.optimizers[0].param_groups for item in group["params"]]

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Train one step."""
        if self.restarting or not self._short:
            super().advance(data_fetcher)
            return
        trainer, logged = self.trainer, self.trainer._logger_connector
        model, data = trainer.lightning_module, trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(model, Classifier)
        assert isinstance(data, ImageData)
        self.val_loop.restarting = False
        batch, _, _ = next(data_fetcher)
        self.batch_progress.is_last_batch = data_fetcher.done
        batch = data.on_before_batch_transfer(batch, 0)
        batch = data.on_after_batch_transfer(data.transfer_batch_to_device(batch, model.device, 0), 0)
        self.batch_progress.increment_ready()
        logged.on_batch_start(batch)
        call._call_callback_hooks(trainer, "on_train_batch_start", batch, self.batch_idx)
        model.on_train_batch_start(batch, self.batch_idx)
        self.batch_progress.increment_started()
        loss = self._step(model, batch)
        self.batch_progress.increment_processed()
        self.update_lr_schedulers("step", update_plateau_schedulers=False)
        if self._num_ready_batches_reached():
            self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        call._call_callback_hooks(trainer, "on_train_batch_end", {"loss": loss}, batch, self.batch_idx)
        logged.on_batch_end()
        self.batch_progress.increment_completed()

    def _step(self, model: Classifier, batch: Batch) -> Tensor:
        progress = self.automatic_optimization.optim_progress.optimizer
        optimizer = self.trainer.optimizers[0]
        progress.step.increment_ready()
        with torch.enable_grad():
            with self.trainer.precision_plugin.train_step_context():
                loss = model.training_step(batch, self.batch_idx)
            progress.zero_grad.increment_ready()
            progress.zero_grad.increment_started()
            for parameter in self._trained:
                parameter.grad = None
            progress.zero_grad.increment_completed()
            loss.backward()
        optimizer.step()
        progress.step.increment_completed()
        return loss.detach()


def shorten_steps(trainer: L.Trainer) -> None:
    """Give a trainer the short loop."""
    own = trainer.fit_loop.epoch_loop
    trainer.fit_loop.epoch_loop = ShortEpochLoop(trainer, own.min_steps, own.max_steps)


def _is_plain(trainer: Any) -> bool:
    """Tell whether a step is nothing but loss, gradients and the optimiser's."""
    precision, model = trainer.precision_plugin, type(trainer.lightning_module)
    return (
        type(trainer.strategy) is SingleDeviceStrategy
        and type(precision) in (Precision, MixedPrecision)
        and getattr(precision, "scaler", None) is None
        and trainer.accumulate_grad_batches == 1
        and not trainer.gradient_clip_val
        and isinstance(trainer.profiler, NoProfiler)
        and not trainer.loggers
        and not isinstance(trainer.optimizers[0], torch.optim.LBFGS)  # which evaluates the loss more than once
        and all(getattr(model, name) is getattr(Classifier, name) for name in _OWN_HOOKS)
        and all(is_idle(item, name) for item in trainer.callbacks for name in _CALLBACK_HOOKS)
    )
