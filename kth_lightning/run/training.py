"""The course of a run: train, complete the best checkpoint, test it."""

import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import current_thread, main_thread

import lightning as L
import torch

from kth_lightning.callbacks.checkpoints import has_checkpoint, is_complete
from kth_lightning.callbacks.ends_on_request import EndsOnRequest
from kth_lightning.callbacks.harmless_logger import without_metrics
from kth_lightning.callbacks.test_predictions import TestPredictions
from kth_lightning.data.module import ImageData
from kth_lightning.errors import InputError
from kth_lightning.evaluation.seen_images import image_keys
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.terminal import print_rank_zero
from kth_lightning.models import Classifier
from kth_lightning.models.checkpoint import read_checkpoint
from kth_lightning.run.recording import Recording


def train_and_test(trainer: L.Trainer, model: Classifier, data: ImageData, recording: Recording) -> None:
    """Train from the last checkpoint, if there is one, then complete the best one and test it.

    Args:
        trainer: With the recording's loggers and callbacks.
        model: What is trained.
        data: The images, with the run's split where it has one.
        recording: Of the run folder.

    Raises:
        InputError: A checkpoint in the folder is not this run's, or nothing was trained.
    """
    run = recording.run
    if not is_complete(run.best_checkpoint):
        _train(trainer, model, data, run)
        _evaluate_best(trainer, run, model, data, trainer.validate, first=[recording.completion])
    else:
        _require_own(run, run.best_checkpoint, data)
    _evaluate_best(trainer, run, model, data, trainer.test, first=[recording.results], last=[recording.report])


def train_and_predict(trainer: L.Trainer, model: Classifier, data: ImageData, run: RunFolder) -> None:
    """Train as `train_and_test` does, and keep of the best checkpoint what it says of the test images alone.

    Args:
        trainer: With a recording's callbacks.
        model: What is trained.
        data: The images, with the run's split.
        run: The folder, whose predictions.csv ends the work; its checkpoints go.

    Raises:
        InputError: A checkpoint in the folder is not this run's, or nothing was trained.
    """
    _train(trainer, model, data, run)
    _evaluate_best(trainer, run, model, data, trainer.test, first=[TestPredictions(run)])
    if trainer.is_global_zero:
        shutil.rmtree(run.checkpoints)


def _train(trainer: L.Trainer, model: Classifier, data: ImageData, run: RunFolder) -> None:
    """Train to the end, from the last checkpoint if there is one."""
    last = run.last_checkpoint
    resume = str(last) if has_checkpoint(last) else None
    if resume:
        _require_own(run, last, data)
    first = {} if resume else _trained_state(model)
    try:
        trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
    except BaseException:
        if not last.exists():  # a repeated call has nothing but the model to begin from
            model.load_state_dict(first, strict=False)
        raise
    if not run.best_checkpoint.exists():
        raise InputError(_without_best(run, resumed=resume is not None))
    _require_own(run, run.best_checkpoint, data)


def _trained_state(model: Classifier) -> dict[str, torch.Tensor]:
    frozen = model.frozen_state()
    return {name: item.clone() for name, item in model.state_dict().items() if name not in frozen}


def try_out(trainer: L.Trainer, model: Classifier, data: ImageData) -> None:
    """Train, validate and test the few batches of the trainer's fast_dev_run, and write nothing."""
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data, verbose=False)
    number = int(trainer.fast_dev_run)  # type: ignore[attr-defined]
    print_rank_zero(
        f"--trainer.fast_dev_run: {number} batch{'es' if number > 1 else ''} each of training, validation and test "
        "went through; no run folder was written"
    )


@contextmanager
def supervised(trainer: L.Trainer, profiled: bool) -> Iterator[None]:
    """Carry out a trainer's work; where it fails or is ended, leave no process behind that waits for this one.

    Args:
        trainer: Which works inside the block.
        profiled: Whether to print its profile behind it.
    """
    if trainer.world_size > 1:
        trainer.callbacks = [EndsOnRequest(), *trainer.callbacks]  # type: ignore[attr-defined]
    # Lightning calls the handler that it finds; its own waits for the next batch of training, which may not come.
    unhandled = current_thread() is main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if unhandled:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except BaseException as error:
        launcher = trainer.strategy.launcher
        if launcher is not None:
            launcher.kill(getattr(signal, "SIGKILL", signal.SIGTERM))
        if isinstance(error, SystemExit):  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from None
        raise
    finally:
        if unhandled:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if profiled:
        profiler = trainer.profiler  # type: ignore[attr-defined]
        print_rank_zero(profiler.summary())  # Lightning logs it, below the level that is shown


def _require_own(run: RunFolder, file: Path, data: ImageData) -> None:
    """Refuse a checkpoint of the run that was made from other images than its splits.csv tells."""
    images, own = read_checkpoint(file).get("images"), image_keys(data)
    if images is None or not all(torch.equal(images[part].sort()[0], own[part].sort()[0]) for part in own):
        trained = int(torch.isin(own["test"], images["train"]).sum()) if images else "an unknown number"
        raise InputError(
            f"{file} was not made from the images and the split that {run.splits} lists ({trained} of the "
            "test images were trained on): one of the two was changed; put it back, or give another --run_dir"
        )


def _evaluate_best(
    trainer: L.Trainer,
    run: RunFolder,
    model: Classifier,
    data: ImageData,
    loop: Callable[..., object],
    first: Sequence[L.Callback] = (),
    last: Sequence[L.Callback] = (),
) -> None:
    """Have the best checkpoint evaluated, with callbacks that take what comes of it.

    Loggers get the figures of the best epoch from a callback, not those of one more epoch from Lightning.
    """
    trainer.strategy.barrier()
    callbacks, loggers = trainer.callbacks, trainer.loggers  # type: ignore[attr-defined]
    trainer.callbacks = [*first, *callbacks, *last]  # type: ignore[attr-defined]
    trainer.loggers = [without_metrics(logger) for logger in loggers]
    try:
        loop(model, datamodule=data, ckpt_path=str(run.best_checkpoint), weights_only=True, verbose=False)
    finally:
        trainer.callbacks, trainer.loggers = callbacks, loggers  # type: ignore[attr-defined]


def _without_best(run: RunFolder, resumed: bool) -> str:
    if resumed:
        return f"{run.best_checkpoint} is gone; give another --run_dir, or delete {run.path} to train it again"
    return f"nothing was trained in {run.path}: training ended before its first epoch did; give it more time"
