"""A pretrained network as a row of stages, to be cut into trunk and tail."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import ResNet
from timm.models.vgg import VGG
from torch import nn

from kth_lightning.errors import InputError
from kth_lightning.models.layers import GlobalMean
from kth_lightning.models.weights import Weights, check_backbone


@dataclass(frozen=True)
class Backbone:
    """Hold a network without its classifier.

    Attributes:
        stages: In the order of the data; empty for a network that cannot be cut.
        pool: From the last stage's maps, or from images where there are no stages, to vectors [B, `width`].
        width: Length of those vectors.
    """

    stages: list[nn.Module]
    pool: nn.Module
    width: int

    def cut(self, name: str, trained: int) -> tuple[nn.Module, nn.Module]:
        """Part the network before its last stages.

        Args:
            name: The network's name, for the message.
            trained: Number of stages behind the cut.

        Returns:
            The stages before the cut, and those behind it with the pooling.

        Raises:
            InputError: The network cannot be cut, or not there.
        """
        if trained and not self.stages:
            raise InputError(
                f"--model.backbone: {name} cannot be cut inside; networks that can are timm's VGG, ResNet, "
                "EfficientNet and ConvNeXt families; any network serves the feature head"
            )
        if not 0 <= trained <= len(self.stages):
            raise InputError(f"--model.trained_stages: {name} has {len(self.stages)} stages; {trained} was asked for")
        position = len(self.stages) - trained
        return nn.Sequential(*self.stages[:position]), nn.Sequential(*self.stages[position:], self.pool)


def build_backbone(name: str, weights: Weights) -> Backbone:
    """Build a timm network without its classifier.

    Args:
        name: A timm model name.
        weights: What `find_weights` found for it.

    Raises:
        InputError: timm does not know the name, or the weights belong to another network.
    """
    check_backbone(name)
    # timm's VGG hides two 4096-wide layers behind the convolutions; they are not used, so they are made tiny.
    options: dict[str, Any] = {"mlp_ratio": 1e-3} if _is_vgg(name) else {}
    network: Any = timm.create_model(name, num_classes=0, **options)
    backbone = next(
        (in_stages(network) for family, in_stages in _FAMILIES.items() if isinstance(network, family)),
        # Some networks widen their features behind the pooling.
        Backbone([], network, getattr(network, "head_hidden_size", network.num_features)),
    )
    if weights.file is not None:
        _load(backbone, network, weights, name)
    return backbone


def _is_vgg(name: str) -> bool:
    return timm.model_entrypoint(name).__module__.endswith(".vgg")


def _load(backbone: Backbone, network: nn.Module, weights: Weights, name: str) -> None:
    used = {
        id(tensor) for part in (*backbone.stages, backbone.pool) for tensor in part.state_dict(keep_vars=True).values()
    }
    wanted = {
        key: tensor
        for key, tensor in network.state_dict(keep_vars=True).items()
        if id(tensor) in used and not key.endswith("num_batches_tracked")  # older files have none
    }
    found = weights.load(name)
    wrong = [key for key, tensor in wanted.items() if getattr(found.get(key), "shape", None) != tensor.shape]
    if wrong:
        raise InputError(
            f"--model.weights: {weights.origin} does not fit {name}: {len(wrong)} of its {len(wanted)} tensors are "
            f"missing or of another shape ({wrong[0]} is one); give its own, or the --model.backbone "
            "they belong to"
        )
    with torch.no_grad():
        for key, tensor in wanted.items():
            tensor.copy_(found[key])


def _vgg_stages(network: Any) -> Backbone:
    layers = list(network.features)
    ends = [position + 1 for position, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    stages: list[nn.Module] = [nn.Sequential(*layers[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    width = [layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)][-1]
    return Backbone(stages, GlobalMean(), width)


def _resnet_stages(network: Any) -> Backbone:
    stem = nn.Sequential(network.conv1, network.bn1, network.act1, network.maxpool)
    stages = [stem, network.layer1, network.layer2, network.layer3, network.layer4]
    return Backbone(stages, GlobalMean(), network.num_features)


def _efficientnet_stages(network: Any) -> Backbone:
    stem = nn.Sequential(network.conv_stem, network.bn1)
    top = nn.Sequential(network.conv_head, network.bn2)
    return Backbone([stem, *network.blocks, top], GlobalMean(), network.num_features)


def _convnext_stages(network: Any) -> Backbone:
    norm = getattr(network.head, "norm", nn.Identity())  # a few have it before the pooling, in norm_pre
    pool = nn.Sequential(network.head.global_pool, norm, network.head.flatten)
    return Backbone([network.stem, *network.stages, network.norm_pre], pool, network.num_features)


_FAMILIES: dict[type[nn.Module], Callable[[Any], Backbone]] = {
    VGG: _vgg_stages,
    ResNet: _resnet_stages,
    EfficientNet: _efficientnet_stages,
    ConvNeXt: _convnext_stages,
}
