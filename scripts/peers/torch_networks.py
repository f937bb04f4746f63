"""The networks of the peers that are written for PyTorch."""

from typing import Any

import timm
from torch import nn

BLOCK_5 = 28
"""Where VGG19's last block begins among timm's layers."""


def build(case: str, classes: int) -> nn.Sequential:
    """Make the network of a case, its weights random."""
    if case == "head":
        return nn.Sequential(nn.Dropout(0.7), nn.Linear(512, classes))
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if case == "benchmark":
        layers: list[nn.Module] = []
        channels = 3
        for width, dropout in ((64, 0.0), (128, 0.0), (256, 0.0), (512, 0.5), (512, 0.4)):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(dropout)]
            channels = width
        return nn.Sequential(*layers, *pool, nn.Dropout(0.3), nn.Linear(512, classes))
    network: Any = timm.create_model("vgg19", pretrained=False)
    features = network.features
    if case == "extraction":
        return nn.Sequential(features, *pool)
    for layer in features[:BLOCK_5]:
        layer.requires_grad_(False)
    return nn.Sequential(features, *pool, nn.Dropout(0.7), nn.Linear(512, classes))
