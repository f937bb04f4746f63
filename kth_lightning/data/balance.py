"""How training makes up for classes of different sizes."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from kth_lightning.errors import InputError

Balance = Literal["none", "inverse", "effective", "sampling"]
"""Nothing; factors in the loss, by the inverse or the effective number of a class's images; or balanced sampling."""

DEFAULT_BETA = 0.99
"""Of the effective number, which then comes to 100 at most; docs/imbalance.md has how it was chosen."""

_OLDER: dict[object, Balance] = {False: "none", True: "inverse"}


def named_balance(value: object) -> object:
    """Return a setting as it is called now: until 0.3.0 it was true or false."""
    return _OLDER[value] if isinstance(value, bool) else value


def read_balance(balance: str | bool, beta: float | None) -> Balance:
    """Return the setting, checked.

    Args:
        balance: One of the names; or true or false, as it was until 0.3.0.
        beta: Of the effective number; None where it was left out.

    Raises:
        InputError: There is no such choice, or beta is out of range or goes with another choice.
    """
    named = named_balance(balance)
    for choice in get_args(Balance):
        if named == choice:
            if beta is not None and choice != "effective":
                raise InputError(f"--data.balance_beta {beta} goes with --data.balance effective; leave it out")
            if beta is not None and not 0 <= beta < 1:
                raise InputError(f"--data.balance_beta {beta}: give a number from 0 to below 1, such as 0.99")
            return choice
    raise InputError(f"--data.balance {balance}: give one of {', '.join(get_args(Balance))}")


def class_factors(counts: NDArray[np.int64], beta: float | None) -> list[float]:
    """Return each class's factor in the loss: 1 on the average over images, so the learning rate keeps its meaning.

    Args:
        counts: Training images of each class, int64 [C].
        beta: Divide by the effective number of images, (1 - beta^n) / (1 - beta) (Y. Cui et al., "Class-Balanced Loss
            Based on Effective Number of Samples", 2019): 0 gives every class the same factor, and the nearer it is to 1
            the nearer they are to the inverse numbers; None for these themselves.

    Returns:
        C of them; 0 for a class without an image.
    """
    number = counts.astype(np.float64)
    if beta is not None:
        number = (1 - beta**number) / (1 - beta)
    factors = np.divide(1, number, out=np.zeros(len(counts)), where=counts > 0)
    return (factors * (counts.sum() / (factors * counts).sum())).tolist()
