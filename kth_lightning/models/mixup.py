"""Mixtures of two images (Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Beta

from kth_lightning.data.batch import PADDING
from kth_lightning.errors import InputError


@dataclass(frozen=True)
class Mixture:
    """Say how the rows of a batch are mixed.

    Attributes:
        partners: Row that each row is mixed with, int64 [B].
        share: Of the row itself, from 0 to 1; the partner has the rest.
    """

    partners: Tensor
    share: float

    def of(self, rows: Tensor) -> Tensor:
        """Mix rows, floating point [B, ...], with their partners."""
        return torch.lerp(rows[self.partners], rows, self.share)

    def of_losses(self, losses: Tensor) -> Tensor:
        """Mix losses [2B]: those by the rows' own labels, and behind them those by their partners'."""
        own, others = losses.chunk(2)
        return torch.lerp(others, own, self.share)


class Mixup:
    """Draw mixtures from torch's own generators.

    Args:
        alpha: Shares are drawn from Beta(alpha, alpha).

    Raises:
        InputError: It is not above 0.
    """

    def __init__(self, alpha: float) -> None:
        if alpha <= 0:
            raise InputError(f"--model.mixup {alpha}: give 0 for none, or a number above it")
        self._shares = Beta(alpha, alpha, validate_args=False)

    def draw(self, labels: Tensor, padded: bool) -> Mixture:
        """Draw how a batch is mixed.

        Args:
            labels: int64 [B], `PADDING` in rows of padding.
            padded: Whether there may be such; they are no partners, as they have no label to share.
        """
        share = float(self._shares.sample())
        partners = torch.randperm(len(labels), device=labels.device)
        if padded:
            own = torch.arange(len(labels), device=labels.device)
            partners = torch.where(labels[partners] == PADDING, own, partners)
        return Mixture(partners, share)
