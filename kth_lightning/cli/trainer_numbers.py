"""Whole numbers and shares in the flags of Lightning's trainer."""

from functools import reduce
from operator import or_
from typing import get_args

import lightning as L


def tell_counts_from_shares() -> None:
    """Have flags such as `--trainer.limit_train_batches` take 1 for one batch and 1.0 for all of them.

    `typing` keeps one object for `Union[int, float]` and `Union[float, int]`, whichever a process meets first, and a
    parser that tries float first reads 1 as 1.0. Unions that are written with | keep their order.
    """
    hints = L.Trainer.__init__.__annotations__
    for name, hint in hints.items():
        kinds = get_args(hint)
        if int in kinds and float in kinds:
            hints[name] = reduce(or_, [int, float, *(kind for kind in kinds if kind not in (int, float))])
