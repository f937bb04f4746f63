"""Settings of a run that would be taken, and cannot be meant."""

import inspect
import math
import os
from collections.abc import Mapping

import lightning as L
from jsonargparse import Namespace
from lightning.pytorch.accelerators import CPUAccelerator

from kth_lightning.data.module import ImageData
from kth_lightning.data.split import Part
from kth_lightning.errors import InputError
from kth_lightning.models import Classifier

LINKS = (
    "num_classes",
    "class_names",
    "class_weights",
    "image_size",
    "interpolation",
    "resize",
    "value_range",
    "tta_flip",
    "seed",
)
"""Settings that the model takes from the data."""

_NOT_ZERO = ("max_epochs", "max_steps", "limit_train_batches", "limit_val_batches", "limit_test_batches")

_LEAST = {"accumulate_grad_batches": 1, "gradient_clip_val": 0, "check_val_every_n_epoch": 1}
"""Below these Lightning trains all the same, and the wrong way, or stumbles."""

_PRECISIONS = ("32", "32-true", "16", "16-mixed", "bf16", "bf16-mixed")

_SEEDS = 2**32


def check_seed(seed: int) -> None:
    """Refuse a seed that numpy would not take.

    Raises:
        InputError: It is out of range.
    """
    if not 0 <= seed < _SEEDS:
        raise InputError(f"--seed_everything {seed}: give a whole number from 0 to {_SEEDS - 1}")


def check_settings(config: Namespace) -> None:
    """Refuse what the trainer and the model take, and cannot be meant.

    Args:
        config: Of the command.

    Raises:
        InputError: There is such a setting.
    """
    check_trainer(config.trainer)
    for name in LINKS:
        default = inspect.signature(Classifier.__init__).parameters[name].default
        if config.model.get("init_args", Namespace()).get(name) not in (None, default):
            position = {"seed": "seed_everything", "class_weights": "data.balance"}.get(name, f"data.{name}")
            where = "the data alone" if name in ("num_classes", "class_names") else f"--{position}"
            raise InputError(f"--model.init_args.{name} cannot be chosen (it follows from {where}); leave it out")
    if config.patience < 1:
        raise InputError(f"--patience {config.patience}: give a whole number of at least 1")


def check_trainer(trainer: Namespace) -> None:
    """Refuse settings of the trainer that it takes, and cannot be meant.

    Raises:
        InputError: There is such a setting.
    """
    if trainer.use_distributed_sampler:
        raise InputError(
            "--trainer.use_distributed_sampler true would count images twice and others never: every process takes "
            "its share of each batch by itself; leave it out"
        )
    interval = trainer.val_check_interval
    if isinstance(interval, int | float) and interval <= 0:
        raise InputError(f"--trainer.val_check_interval {interval}: give a number above 0")
    for name in _NOT_ZERO:
        if trainer[name] == 0:
            raise InputError(f"--trainer.{name} 0: nothing would be trained or tested; give more, or leave it out")
    for name, least in _LEAST.items():
        value = trainer[name]
        if value is not None and value < least:
            raise InputError(f"--trainer.{name} {value}: give a number of at least {least}")
    if trainer.precision is not None and str(trainer.precision) not in _PRECISIONS:
        raise InputError(f"--trainer.precision {trainer.precision}: give 32-true, bf16-mixed or 16-mixed")


def check_validation(trainer: L.Trainer, images: int, batch_size: int) -> None:
    """Refuse a run without a validation, of which no epoch would be the best.

    Args:
        trainer: As it will train.
        images: Number of training images.
        batch_size: Images a batch.

    Raises:
        InputError: There would be none.
    """
    limit, interval = trainer.limit_train_batches, trainer.val_check_interval
    batches = math.ceil(images / batch_size)
    batches = int(batches * limit) if isinstance(limit, float) else min(batches, limit)
    every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
    if isinstance(interval, int) and every is not None and interval > batches:
        raise InputError(
            f"--trainer.val_check_interval {interval}: an epoch has {batches} batches; give no more, or "
            "--trainer.check_val_every_n_epoch null to count on into the next epoch"
        )
    if every is not None and epochs not in (None, -1) and every > epochs:
        raise InputError(
            f"--trainer.check_val_every_n_epoch {every}: a run of {epochs} epochs would not be validated once; give "
            "no more than it has"
        )
    if isinstance(interval, int | float):
        first = interval if isinstance(interval, int) else max(1, int(batches * interval))
        first += 0 if every is None else (every - 1) * batches
        steps = math.ceil(first / trainer.accumulate_grad_batches)
        asked = trainer.max_steps if trainer.max_steps > 0 else math.inf
        if every is None and epochs not in (None, -1):
            asked = min(asked, epochs * batches // trainer.accumulate_grad_batches)
        if steps > asked:
            raise InputError(
                f"the run ends after {asked} steps and its first validation comes after {steps}: train longer, or "
                "validate earlier (--trainer.val_check_interval)"
            )


def check_parts(trainer: L.Trainer, images: Mapping[Part, int], batch_size: int) -> None:
    """Refuse shares of validation or test images that are less than a batch: Lightning would, after the training.

    Args:
        trainer: As it will train.
        images: Number of images of each part.
        batch_size: Images a batch.

    Raises:
        InputError: There would be none.
    """
    limits: tuple[tuple[Part, int | float], ...] = (
        ("val", trainer.limit_val_batches), ("test", trainer.limit_test_batches)
    )  # fmt: skip
    for part, limit in limits:
        batches = math.ceil(images[part] / batch_size)
        if batches and isinstance(limit, float) and int(batches * limit) == 0:
            name = "validation" if part == "val" else part
            raise InputError(
                f"--trainer.limit_{part}_batches {limit:g}: the {images[part]} {name} images are {batches} "
                f"batch{'es' if batches > 1 else ''} of {batch_size}, of which that is less than one; give more, or a "
                "smaller --data.batch_size"
            )


def check_cores(trainer: L.Trainer, sync_batchnorm: bool) -> None:
    """Refuse more processes on the CPU than it has cores, and what they cannot do there.

    Args:
        trainer: As it will train.
        sync_batchnorm: Whether it is to share batch normalisation over processes.

    Raises:
        InputError: It is such a trainer.
    """
    if not isinstance(trainer.accelerator, CPUAccelerator):
        return
    cores = os.cpu_count() or 1
    if trainer.num_devices > cores:
        raise InputError(f"--trainer.devices {trainer.num_devices}: there are {cores} CPU cores; give no more")
    if sync_batchnorm:
        raise InputError("--trainer.sync_batchnorm: PyTorch has it on GPUs only; leave it out")


def check_links(model: Classifier, data: ImageData) -> None:
    """Refuse a model that does not take over what must agree with the data.

    Raises:
        InputError: Its class passes something else on.
    """
    for name in ("num_classes", "class_names", "image_size", "interpolation", "resize", "tta_flip", "seed"):
        if getattr(model, name) != getattr(data, name):
            raise InputError(
                f"--model: {type(model).__name__} has a {name} of its own, which must be that of the data; give its "
                "__init__ the argument **kwargs and pass that on to super().__init__"
            )
