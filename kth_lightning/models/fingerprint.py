"""By what two frozen networks are told apart."""

import hashlib

import torch
from torch import nn

from kth_lightning.stores.value_hash import value_hash

_LIBRARIES = ("torch", "timm", "torchvision", "kth_lightning")


def fingerprint(*networks: nn.Module, built_by_name: bool = False) -> bytes:
    """Return a hash that networks share only where they compute the same.

    It is made of all that their layers hold and of their code, as `value_hash` says.

    Args:
        networks: In evaluation mode.
        built_by_name: They are what this package makes of timm's names. Then they are told apart by their layers as
            they are printed and by their tensors, unless a layer is of somebody's own class.

    Raises:
        UntoldError: They cannot be told from others.
    """
    if built_by_name and all(_is_of_a_library(layer) for network in networks for layer in network.modules()):
        return _as_printed(*networks)
    return value_hash(*networks)


def _is_of_a_library(layer: nn.Module) -> bool:
    return type(layer).__module__.partition(".")[0] in _LIBRARIES


def _as_printed(*networks: nn.Module) -> bytes:
    digest = hashlib.sha256()
    for network in networks:
        digest.update(str(network).encode())
        for tensor in network.state_dict().values():
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()
