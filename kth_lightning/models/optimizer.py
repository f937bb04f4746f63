"""How an optimiser is made from a callable, and what it may not be."""

from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch.optim import LBFGS, Optimizer, SparseAdam

from kth_lightning.errors import InputError


def make_optimizer(optimizer: OptimizerCallable, groups: list[dict[str, Any]]) -> Optimizer:
    """Make an optimiser, and scale the learning rate of each group that has an "lr_scale".

    Args:
        optimizer: Takes parameter groups, as all of torch.optim's classes do with their settings filled in.
        groups: Each with "params" and, where its learning rate is another, "lr_scale".

    Raises:
        InputError: There is nothing to train, or the optimiser does not take the groups or its settings, or works on
            other kinds of gradients.
    """
    if not any(group["params"] for group in groups):
        raise InputError("--model: there is no parameter to train; give the class some outside its trunk")
    try:
        made = optimizer([{"params": group["params"]} for group in groups])
    except (TypeError, ValueError) as error:
        raise InputError(f"--model.optimizer: it cannot be made ({error}); change its settings") from None
    if isinstance(made, LBFGS | SparseAdam):
        raise InputError(
            f"--model.optimizer: {type(made).__name__} wants whole data sets or sparse gradients; give another"
        )
    for group, given in zip(made.param_groups, groups, strict=True):
        group["lr"] *= given.get("lr_scale", 1.0)
    return made
