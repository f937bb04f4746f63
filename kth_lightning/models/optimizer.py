"""Optimisers of torch.optim, by name."""

from difflib import get_close_matches
from typing import Any

import torch

from kth_lightning.errors import InputError

ARTICLE_OPTIONS: dict[str, dict[str, Any]] = {"RMSprop": {"alpha": 0.9, "eps": 1e-7}, "SGD": {"momentum": 0.9}}
"""What the article's optimisers were given beside the learning rate."""

_UNUSABLE = ("Optimizer", "LBFGS", "SparseAdam")  # the last two want whole data sets, and gradients of another kind


def make_optimizer(
    name: str, groups: list[dict[str, Any]], lr: float, options: dict[str, Any]
) -> torch.optim.Optimizer:
    """Make an optimiser of torch.optim.

    Raises:
        InputError: There is no such class, or it does not take the options.
    """
    known = [item for item, kind in vars(torch.optim).items() if isinstance(kind, type) and item not in _UNUSABLE]
    if name not in known:
        near = get_close_matches(name, known, n=3, cutoff=0.4)
        raise InputError(f"--model.optimizer: torch.optim has no {name!r}; did you mean {', '.join(near or known)}?")
    try:
        return getattr(torch.optim, name)(groups, lr=lr, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"--model.optimizer_options: {name} does not take {options} ({error})") from None
