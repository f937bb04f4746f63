"""The article's optimisers, how any is made from a callable, and what it may not be."""

from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import LBFGS, SGD, Adagrad, Optimizer, RMSprop, SparseAdam
from torch.optim.optimizer import ParamsT

from kth_lightning.errors import InputError


class ArticleRMSprop(RMSprop):
    """RMSprop as the article's Keras had it: rho .9, epsilon 1e-7.

    They are no arguments, since jsonargparse hands a default's arguments on to any other class that has them: AdamW in
    its place would get this epsilon.

    Args:
        params: Parameter groups.
        lr: Learning rate.
    """

    def __init__(self, params: ParamsT, lr: float = 1e-3) -> None:
        super().__init__(params, lr=lr, alpha=0.9, eps=1e-7)


class ArticleSGD(SGD):
    """Gradient descent as the article fine-tunes by it: momentum .9, which is no argument as above.

    Args:
        params: Parameter groups.
        lr: Learning rate.
    """

    def __init__(self, params: ParamsT, lr: float = 1e-4) -> None:
        super().__init__(params, lr=lr, momentum=0.9)


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
        if "fused" in group and group["fused"] is None and group["foreach"] is None and not group["differentiable"]:
            group["fused"] = _can_be_fused(made, group["params"])
    return made


def _can_be_fused(optimizer: Optimizer, parameters: list[Tensor]) -> bool:
    """Tell whether torch's fused step takes all parameters: one pass over each instead of a dozen operators."""
    devices = ("cpu",) if isinstance(optimizer, Adagrad) else ("cpu", "cuda")
    return all(item.is_floating_point() and item.device.type in devices for item in parameters)
