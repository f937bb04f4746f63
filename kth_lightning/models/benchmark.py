"""The benchmark: five convolutional blocks trained from scratch."""

from typing import Any

import torch
from torch import Tensor, nn

from kth_lightning.errors import InputError
from kth_lightning.models.base import Classifier, require_share
from kth_lightning.models.layers import Dropout, GlobalMean, Head, init_like_keras


class BenchmarkCNN(Classifier):
    """Train five convolutional blocks, global average pooling and a dense layer from scratch.

    The defaults are the article's: 3,920,531 parameters for 19 classes.

    Args:
        num_classes: Number of classes, the length of the logits.
        filters: Number of filters of each block's 3x3 convolution; every block halves height and width.
        block_dropout: Share of values that are dropped in training behind each block.
        dropout: Share of values that are dropped in training before the dense layer.
        batch_norm: Normalise between each convolution and its ReLU.
        **kwargs: See `Classifier`.

    Raises:
        InputError: The blocks and their dropouts are not of one number, or a setting is out of its range.
    """

    def __init__(
        self,
        num_classes: int,
        filters: tuple[int, ...] = (64, 128, 256, 512, 512),
        block_dropout: tuple[float, ...] = (0.0, 0.0, 0.0, 0.5, 0.4),
        dropout: float = 0.3,
        batch_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        if len(filters) != len(block_dropout):
            raise InputError(
                f"--model.block_dropout: {len(filters)} blocks have {len(block_dropout)} values; give one each"
            )
        if not filters or min(filters) < 1:
            raise InputError(f"--model.filters {list(filters)}: give at least one block, each with at least one filter")
        require_share("block_dropout", *block_dropout)
        require_share("dropout", dropout)
        self.blocks = nn.Sequential()
        channels = 3
        for width, drop in zip(filters, block_dropout, strict=True):
            self.blocks.append(_block(channels, width, drop, batch_norm))
            channels = width
        self.pool = GlobalMean()
        self.head = Head(channels, num_classes, dropout)
        self.to(memory_format=torch.channels_last)

    def tail(self, features: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W] to logits [B, num_classes]."""
        return self.head(self.pool(self.blocks(features)))

    def class_activation(self) -> tuple[nn.Module, nn.Module]:
        """Name the global average and the head."""
        return self.pool, self.head


def _block(channels: int, width: int, dropout: float, batch_norm: bool) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, 3, padding=1)
    init_like_keras(convolution)
    norm = [nn.BatchNorm2d(width)] if batch_norm else []
    # Behind the pooling the ReLU gives the same values and gradients, of a quarter of the numbers.
    return nn.Sequential(convolution, *norm, nn.MaxPool2d(2), nn.ReLU(inplace=True), Dropout(dropout))
