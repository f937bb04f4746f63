"""A pretrained network as a row of stages, to be cut into trunk and tail."""

import math
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from kth_lightning.errors import InputError
from kth_lightning.models.dataflow import Step, record, row_before
from kth_lightning.models.layers import ChannelsFirst, GlobalMean, TokensToMaps
from kth_lightning.models.segments import find_places, part_at
from kth_lightning.models.stages import Ending, Passed, part_network
from kth_lightning.models.weights import Weights, check_backbone

_PROBE = 64
"""Side of the images that a network is looked through with, where it takes any."""


@dataclass(frozen=True)
class Backbone:
    """Hold a network without its classifier.

    Attributes:
        stages: In the order of the data; a network that cannot be cut is one.
        pool: From the last stage's maps or tokens to vectors [B, `width`].
        mean: The global average that `pool` ends in; None where there is none, or something else behind it.
        width: Length of those vectors.
    """

    stages: list[nn.Module]
    pool: nn.Module
    mean: GlobalMean | None
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
        if trained and len(self.stages) == 1:
            raise InputError(
                f"--model.backbone: {name} cannot be cut into stages, since several tensors pass wherever timm says "
                "that one ends, or timm does not say; give another, such as convnext_tiny, or train a FeatureHead on it"
            )
        if not 0 <= trained <= len(self.stages):
            raise InputError(f"--model.trained_stages: {name} has {len(self.stages)} stages; {trained} was asked for")
        position = len(self.stages) - trained
        return nn.Sequential(*self.stages[:position]), nn.Sequential(*self.stages[position:], self.pool)


def build_backbone(name: str, weights: Weights, image_size: int) -> Backbone:
    """Build a timm network without its classifier, parted where timm says that its stages end.

    Its vectors are the ones that timm pools too, but for vision transformers with a class token: the mean over the
    patches tells where a class is seen.

    Args:
        name: A timm model name.
        weights: What `find_weights` found for it.
        image_size: Side of the images that it will be given.

    Raises:
        InputError: timm does not know the name, the weights belong to another network, or the network does not take
            images of that size.
    """
    check_backbone(name)
    network = _create(name)
    if weights.file is not None:
        _load(network, weights, name)
    _resize(network, name, image_size)
    images, steps, maps = _look_through(network.eval(), name, image_size)
    row = row_before(maps, steps)
    plain = bool(row) and row[0].taken is images
    pool, mean = _pooling(network, maps) if isinstance(maps, Tensor) else (None, None)
    whole = pool is None and not plain
    if whole:
        pool, maps, row = nn.Identity(), network(images).detach(), []
    method = "forward" if whole else "forward_features"
    places = [] if plain else find_places(network, getattr(network, method), images)
    if row and places and row[0].begin <= places[0].begin:
        places = []  # the row has all of them
    stages = part_at(network, method, places, image_size) if places else []
    if not stages:
        stages = [network] if whole else part_network(network, row, plain, steps)
    pool = pool or Ending(network)
    with torch.no_grad():
        width = pool.eval()(maps).shape[1]
    for module in (*stages, pool):
        module.train()  # what becomes the trunk is put back; Lightning trains in the mode that it finds
    return Backbone(stages, pool, mean, width)


def _create(name: str) -> Any:
    if not timm.model_entrypoint(name).__module__.endswith(".vgg"):
        return timm.create_model(name, num_classes=0)
    # Two dense layers of 4096 behind the convolutions are the classifier's: they are made tiny, then left out.
    network: Any = timm.create_model(name, num_classes=0, mlp_ratio=1e-3)
    network.pre_logits = nn.Identity()
    return network


def _load(network: nn.Module, weights: Weights, name: str) -> None:
    wanted = {
        key: tensor
        for key, tensor in network.state_dict(keep_vars=True).items()
        if not key.endswith("num_batches_tracked")  # older files have none
    }
    state = weights.load(name)
    wrong = [key for key, tensor in wanted.items() if getattr(state.get(key), "shape", None) != tensor.shape]
    if wrong:
        raise InputError(
            f"--model.weights: {weights.origin} does not fit {name}: {len(wrong)} of its {len(wanted)} tensors are "
            f"missing or of another shape ({wrong[0]} is one); give its own, or the --model.backbone "
            "they belong to"
        )
    with torch.no_grad():
        for key, tensor in wanted.items():
            tensor.copy_(state[key])


def _fixed_size(name: str) -> int | None:
    """Return the side of the images that a network is made for; None where it takes any."""
    config = timm.get_pretrained_cfg(name)
    return config.input_size[1] if config and config.fixed_input_size else None


def _resize(network: Any, name: str, image_size: int) -> None:
    """Have a network that is made for one size of images take another, where timm can do that."""
    own = _fixed_size(name)
    if own in (None, image_size):
        return
    if not hasattr(network, "set_input_size"):
        raise InputError(f"--data.image_size {image_size}: {name} takes images of {own} pixels only")
    patch = network.feature_info[0]["reduction"]
    try:
        if image_size % patch:
            raise ValueError
        network.set_input_size(img_size=(image_size, image_size))
    except (AssertionError, ValueError, RuntimeError):
        near = max(round(image_size / patch), 1) * patch
        raise InputError(
            f"--data.image_size {image_size}: {name} looks at patches of {patch} pixels; give a multiple of that, such "
            f"as {near}"
        ) from None


def _look_through(network: Any, name: str, image_size: int) -> tuple[Tensor, list[Step], Tensor]:
    """Run images through a network, small ones where it takes any; return them, the calls of its modules, its maps."""
    small = image_size > _PROBE and _fixed_size(name) is None
    for side in [_PROBE, image_size] if small else [image_size]:
        images = torch.zeros(1, 3, side, side)
        try:
            return images, *record(network, network.forward_features, images)
        except (AssertionError, RuntimeError, ValueError, IndexError) as error:
            reason = " ".join(str(error).split())[:120]
    raise InputError(f"--data.image_size {image_size}: {name} does not take images of that size ({reason})")


def _pooling(network: Any, maps: Tensor) -> tuple[nn.Module | None, GlobalMean | None]:
    """Return what pools a network's maps, and the global average in it if it ends in that; None if timm's own must."""
    mean = GlobalMean()
    prefix = getattr(network, "num_prefix_tokens", 0)
    if maps.ndim == 3:
        patches = maps.shape[1] - prefix
        if patches < 2 or math.isqrt(patches) ** 2 != patches:
            return None, None
    if maps.ndim == 3 and hasattr(network, "num_prefix_tokens"):  # a vision transformer
        norm = getattr(network, "fc_norm", nn.Identity())
        if isinstance(norm, nn.Identity):
            return nn.Sequential(TokensToMaps(prefix), mean), mean
        network.fc_norm = Passed()
        return nn.Sequential(TokensToMaps(prefix), mean, norm), None
    candidates: dict[int, list[list[nn.Module]]] = {3: [[TokensToMaps(0)]], 4: [[], [ChannelsFirst()]]}
    drawn = torch.rand(maps.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pooled = network.forward_head(drawn, pre_logits=True)
        for before in candidates.get(maps.ndim, []):
            pool = nn.Sequential(*before, mean)
            vectors = pool(drawn)
            if vectors.shape == pooled.shape and torch.allclose(vectors, pooled, atol=1e-5):
                return (pool if before else mean), mean
    return None, None
