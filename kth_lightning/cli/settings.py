"""Settings of a run that would be taken, and cannot be meant."""

import inspect

from jsonargparse import Namespace

from kth_lightning.errors import InputError
from kth_lightning.models import Classifier

LINKS = (
    "num_classes",
    "class_names",
    "class_weights",
    "image_size",
    "interpolation",
    "value_range",
    "tta_flip",
    "seed",
)
"""Settings that the model takes from the data."""

_OWN = {
    "logger": (None, "a run is logged in its run folder, for TensorBoard"),
    "plugins": (None, "how checkpoints are written is the run's own"),
    "default_root_dir": (None, "--run_dir says where a run is written"),
    "check_val_every_n_epoch": (1, "a run validates after every epoch"),
    "val_check_interval": (None, "a run validates after every epoch"),
    "overfit_batches": (None, "--trainer.limit_train_batches trains on a part of the images"),
    "use_distributed_sampler": (None, "every process takes its share of each batch by itself"),
    "fast_dev_run": (None, "--config configs/debug.yaml shows every part of a run in seconds"),
}
"""Flags of the trainer that a run sets, and why."""

_NOT_ZERO = ("max_epochs", "max_steps", "limit_train_batches", "limit_val_batches", "limit_test_batches")

_LEAST = {"accumulate_grad_batches": 1, "gradient_clip_val": 0}
"""Below these Lightning trains all the same, and the wrong way."""

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
    """Refuse what the trainer takes, and cannot be meant.

    Args:
        config: Of the command.

    Raises:
        InputError: There is such a setting.
    """
    for name, (default, reason) in _OWN.items():
        if (config.trainer[name] or None) != default:
            raise InputError(f"--trainer.{name} cannot be chosen ({reason}); leave it out")
    for name in _NOT_ZERO:
        if config.trainer[name] == 0:
            raise InputError(f"--trainer.{name} 0: nothing would be trained or tested; give more, or leave it out")
    for name, least in _LEAST.items():
        value = config.trainer[name]
        if value is not None and value < least:
            raise InputError(f"--trainer.{name} {value}: give a number of at least {least}")
    if config.trainer.precision is not None and str(config.trainer.precision) not in _PRECISIONS:
        raise InputError(f"--trainer.precision {config.trainer.precision}: give 32-true, bf16-mixed or 16-mixed")
    for name in LINKS:
        default = inspect.signature(Classifier).parameters[name].default
        if config.model.init_args.get(name) not in (None, default):
            position = {"seed": "seed_everything", "class_weights": "data.balance"}.get(name, f"data.{name}")
            where = "the data alone" if name in ("num_classes", "class_names") else f"--{position}"
            raise InputError(f"--model.init_args.{name} cannot be chosen (it follows from {where}); leave it out")
    if config.patience < 1:
        raise InputError(f"--patience {config.patience}: give a whole number of at least 1")
