"""The layers that the three models share, and what is done to those of a backbone."""

import math

import torch
from torch import Tensor, nn

from kth_lightning.models.weights import Preprocessing


class Preprocess(nn.Module):
    """Turn images in 0..255 into what the weights expect.

    Its settings are buffers, so that a checkpoint carries them.

    Args:
        preprocessing: Mean, standard deviation and channel order.
    """

    mean: Tensor
    std: Tensor
    channels: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(3, 1, 1))
        self.register_buffer("channels", torch.tensor([2, 1, 0] if preprocessing.order == "bgr" else [0, 1, 2]))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise RGB images [B, 3, H, W] of any dtype in 0..255; returns float32."""
        inputs = (images[:, self.channels].float() / 255 - self.mean) / self.std
        return inputs.contiguous(memory_format=torch.channels_last)


class GlobalMean(nn.Module):
    """Average each channel over height and width: [B, C, H, W] to float32 [B, C]."""

    def forward(self, maps: Tensor) -> Tensor:
        """Average in float32, whatever the maps' dtype."""
        return maps.float().mean((2, 3))


class ChannelsFirst(nn.Module):
    """Turn maps [B, H, W, C] into maps [B, C, H, W]."""

    def forward(self, maps: Tensor) -> Tensor:
        """Move the channels."""
        return maps.movedim(-1, 1)


class TokensToMaps(nn.Module):
    """Turn a vision transformer's tokens [B, prefix + side * side, D] into maps [B, D, side, side].

    Args:
        prefix: Number of tokens before those of the patches, such as the class token.
    """

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix

    def forward(self, tokens: Tensor) -> Tensor:
        """Leave the prefix out and put the patches in their places."""
        patches = tokens[:, self.prefix :]
        side = math.isqrt(patches.shape[1])
        return patches.transpose(1, 2).unflatten(2, (side, side))

    def extra_repr(self) -> str:
        """Name the setting."""
        return f"prefix={self.prefix}"


class Dropout(nn.Dropout):
    """Drop features as torch's does, mask by mask, in a fifth of the time on a CPU.

    There torch draws a mask's entries one after the other; this draws four at a time, of 16 bits each. So the share is
    rounded to a multiple of 1/65536, and what is kept is scaled by that.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Drop features of any shape in training."""
        dropped, entries = round(self.p * _STEPS), features.numel()
        fast = features.device.type == "cpu" and not torch.compiler.is_compiling()  # which could not follow `random_`
        if not self.training or not 0 < dropped < _STEPS or not fast:
            return super().forward(features)
        bits = torch.empty(-(-entries // 4), dtype=torch.int64).random_(-(2**63), None)
        strides = torch.empty_like(features, device="meta").stride()  # dense, in the order of the features'
        drawn = bits.view(torch.int16).as_strided(features.shape, strides)  # of -_STEPS / 2 to _STEPS / 2 - 1
        return features * (drawn >= dropped - _STEPS // 2).to(features.dtype).mul_(_STEPS / (_STEPS - dropped))


_STEPS = 2**16
"""Values that the 16 bits have which decide of an entry."""


class Head(nn.Sequential):
    """Map feature vectors [B, width] to logits [B, num_classes] through dropout and one linear layer, in float32."""

    def __init__(self, width: int, num_classes: int, dropout: float) -> None:
        dense = nn.Linear(width, num_classes)
        init_like_keras(dense)
        super().__init__(Dropout(dropout), dense)

    def forward(self, features: Tensor) -> Tensor:
        """Leave mixed precision, whose 8 bits would round the probabilities."""
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float())


def spare_single_values(network: nn.Module) -> None:
    """Have batch normalisation use its running statistics wherever a batch gives it one value a channel.

    A last batch of one image does, behind stages that leave one place of it, and so does every batch of one image a
    process. Of one value there is no deviation, so torch ends the training there.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            _spare(module)


def _spare(norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> None:
    spared = False

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal spared
        spared = module.training and inputs[0].numel() == norm.num_features
        if spared:
            module.eval()

    def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if spared:
            module.train()

    norm.register_forward_pre_hook(before)
    norm.register_forward_hook(after, always_call=True)


def init_like_keras(layer: nn.Conv2d | nn.Linear) -> None:
    """Draw weights by Glorot's uniform rule and set biases to zero, as Keras does."""
    nn.init.xavier_uniform_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
