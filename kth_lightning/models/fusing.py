"""Convolutions of a CPU that activate and pad as they compute, so that no tensor is gone through again for it."""

from collections import Counter
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from kth_lightning.models.dataflow import Step, record

_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.SiLU: ("swish", []),
    nn.Hardswish: ("hardswish", []),
}
"""What oneDNN calls an activation, and the numbers that it takes."""


class FusedConv2d(nn.Module):
    """Convolve, pad and activate in one operator of oneDNN, for images of one size.

    Padding of TensorFlow's kind, one more on the right, becomes padding that is equal on both sides of a kernel with a
    row and a column of zeros more.

    Args:
        convolution: A `Conv2d`, or timm's `Conv2dSame`.
        taken: What it takes, [B, C, H, W].
        activation: What is done behind it, or None.
    """

    def __init__(self, convolution: nn.Conv2d, taken: Tensor, activation: nn.Module | None) -> None:
        super().__init__()
        weight, padding = convolution.weight, convolution.padding
        self._size: torch.Size | None = None
        if isinstance(convolution, Conv2dSame):
            self._size = taken.shape[-2:]
            sides = zip(taken.shape[-2:], convolution.stride, convolution.kernel_size, strict=True)
            rows, columns = (
                max((-(-side // stride) - 1) * stride + kernel - side, 0) for side, stride, kernel in sides
            )
            weight = F.pad(weight, (columns % 2, 0, rows % 2, 0))
            padding = ((rows + 1) // 2, (columns + 1) // 2)
        self.weight, self.bias = nn.Parameter(weight, requires_grad=False), convolution.bias
        self._geometry = (padding, convolution.stride, convolution.dilation, convolution.groups)
        self._activation: tuple[str, list[float]] = _ACTIVATIONS[type(activation)] if activation else ("none", [])

    def forward(self, images: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C', H', W'], in autocast's dtype where that is on; there is no gradient."""
        if self._size not in (None, images.shape[-2:]):
            raise RuntimeError(f"padded for maps of {tuple(self._size or ())}, not of {tuple(images.shape[-2:])}")
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else self.weight.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        # A private operator: in eager mode no public one activates too. What `fold` makes of it is tried first.
        fused: Tensor = torch.ops.mkldnn._convolution_pointwise(
            images.to(dtype), self.weight.to(dtype), bias, *self._geometry, *self._activation, None
        )
        return fused


def fuse(network: nn.Module, probe: Tensor) -> None:
    """Put fused convolutions into a network, where they spare something.

    Args:
        network: Frozen, on a CPU. It computes the same only where nothing else takes what a convolution gives.
        probe: What it takes, [1, ...], of the size of all images.
    """
    steps, _ = record(network, network, probe)
    calls = Counter(id(step.module) for step in steps)
    once = [step for step in steps if calls[id(step.module)] == 1 and step.taken is not None]
    behind = {id(step.taken): step for step in once if type(step.module) in _ACTIVATIONS}
    convolutions = [step for step in once if type(step.module) in (nn.Conv2d, Conv2dSame) and _is_plain(step.module)]
    pairs = [(step, behind[id(step.given)]) for step in convolutions if id(step.given) in behind]
    activations = dict(_untouched(network, probe, pairs))
    for step in convolutions:
        activation = activations.get(step)
        if activation or isinstance(step.module, Conv2dSame):
            assert step.taken is not None
            assert isinstance(step.module, nn.Conv2d)
            fused = FusedConv2d(step.module, step.taken, activation.module if activation else None)
            network.set_submodule(step.name, fused)
            if activation:
                network.set_submodule(activation.name, nn.Identity())


def _untouched(network: nn.Module, probe: Tensor, pairs: list[tuple[Step, Step]]) -> list[tuple[Step, Step]]:
    """Return those whose second takes what the first gave before anything is added to it in place."""
    given: dict[int, Tensor] = {}
    kept, hooks = [], []
    for pair in pairs:

        def keep(module: nn.Module, args: Any, output: Tensor) -> None:
            given[id(module)] = output.clone()

        def compare(module: nn.Module, args: Any, pair: tuple[Step, Step] = pair) -> None:
            if torch.equal(given[id(pair[0].module)], args[0]):
                kept.append(pair)

        hooks += [pair[0].module.register_forward_hook(keep), pair[1].module.register_forward_pre_hook(compare)]
    try:
        network(probe)
    finally:
        for hook in hooks:
            hook.remove()
    return kept


def _is_plain(convolution: Any) -> bool:
    """Tell whether what it does lies in its numbers alone: zeros around, and none between where those differ."""
    same = isinstance(convolution, Conv2dSame)
    return (
        convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str)
        and (not same or set(convolution.dilation) == {1})
    )
