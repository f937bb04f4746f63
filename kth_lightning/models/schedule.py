"""Learning-rate schedules: the cosine of our recipes, and how any of torch's is stepped."""

import inspect
import math
from functools import partial

from lightning.pytorch.cli import LRSchedulerCallable
from lightning.pytorch.utilities.types import LRSchedulerConfigType
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, OneCycleLR

from kth_lightning.errors import InputError


class Cosine(LambdaLR):
    """Schedule that raises the learning rate linearly and lowers it to 0 along a cosine, step by step.

    Args:
        optimizer: Whose learning rates are the peaks.
        total_steps: Steps of the whole run; a run fills it in.
        warmup: Share of the run in which the learning rate rises from 0.

    Raises:
        ValueError: A number is out of its range.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int | None = None, warmup: float = 0.0) -> None:
        if not 0 <= warmup <= 1:
            raise ValueError(f"warmup {warmup}: give a number from 0 to 1")
        if total_steps is None or total_steps < 1:
            raise ValueError("total_steps: give the number of steps of the run")
        rising = round(warmup * total_steps)

        def factor(step: int) -> float:
            if step < rising:
                return (step + 1) / (rising + 1)
            return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total_steps - rising)))

        super().__init__(optimizer, factor)


def takes_total_steps(schedule: LRSchedulerCallable) -> bool:
    """Tell whether a schedule has an open argument `total_steps`, as `Cosine` and torch's `OneCycleLR` do."""
    if isinstance(schedule, partial) and "total_steps" in schedule.keywords:  # as from a recipe, all settings told
        return schedule.keywords["total_steps"] is None
    parameter = inspect.signature(schedule).parameters.get("total_steps")
    return parameter is not None and parameter.default is None


def make_scheduler(schedule: LRSchedulerCallable, optimizer: Optimizer, total_steps: float) -> LRSchedulerConfigType:
    """Make a scheduler and say when it is stepped: after every batch, or after every epoch as most of torch's are.

    Args:
        schedule: Takes the optimiser, and `total_steps` where it has that argument and no value for it.
        optimizer: Whose learning rates are changed.
        total_steps: Steps of the run; infinite where it has no end.

    Raises:
        InputError: The run has no end and the schedule needs one, or a setting is out of its range.
    """
    by_total = takes_total_steps(schedule)
    if by_total and math.isinf(total_steps):
        raise InputError("--model.lr_scheduler needs an end: give --trainer.max_epochs")
    try:
        scheduler = schedule(optimizer, total_steps=int(total_steps)) if by_total else schedule(optimizer)  # type: ignore[call-arg]
    except (TypeError, ValueError) as error:
        raise InputError(f"--model.lr_scheduler: it cannot be made ({error}); change its settings") from None
    by_step = by_total or isinstance(scheduler, OneCycleLR | CyclicLR | Cosine)
    return LRSchedulerConfigType(
        scheduler=scheduler,
        interval="step" if by_step else "epoch",
        monitor=getattr(scheduler, "monitor", "val/loss"),  # what ReduceLROnPlateau looks at
    )
