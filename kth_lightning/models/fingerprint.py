"""By what two frozen networks are told apart."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from kth_lightning.io.class_path import class_path

_TOLD_BY_THEIR_TEXT = ("torch", "timm", "torchvision", "kth_lightning")
"""Packages whose layers say all that they do, apart from their weights, when they are printed."""


def fingerprint(*networks: nn.Module) -> bytes:
    """Return a hash that networks share only where they compute the same.

    It is made of their layers as they are printed and of all tensors; of a layer that somebody wrote also of its
    attributes and of the file that its class stands in, so that whoever edits a class gets another hash.
    """
    digest = hashlib.sha256()
    for network in networks:
        digest.update(str(network).encode())
        for layer in network.modules():
            for text in _own_parts(layer):
                digest.update(text)
        for tensor in network.state_dict().values():
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()


def _own_parts(layer: nn.Module) -> Iterator[bytes]:
    module = sys.modules[type(layer).__module__]
    if module.__name__.partition(".")[0] in _TOLD_BY_THEIR_TEXT:
        return
    plain = {name: value for name, value in vars(layer).items() if isinstance(value, bool | int | float | str | tuple)}
    yield f"{class_path(layer)} {plain | {'training': False}}".encode()
    if file := getattr(module, "__file__", None):
        yield Path(file).read_bytes()
