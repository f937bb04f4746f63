"""Frozen networks with their batch normalisation folded: the same figures, from fewer layers."""

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn

from kth_lightning.explain.cam import activation_maps
from kth_lightning.models import FeatureHead
from kth_lightning.models.backbone import build_backbone
from kth_lightning.models.folding import Folded, fold, fold_trunk
from kth_lightning.models.weights import find_weights


def _with_statistics(network: nn.Module) -> nn.Module:
    """Give normalisations something to do, and return the network frozen."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_var, module.weight):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.running_mean, module.bias):
                assert tensor is not None
                nn.init.normal_(tensor, std=0.3)
    return network.eval().requires_grad_(False)


def _norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "densenet121", "repvgg_a0", "mixnet_s"])
def test_a_folded_network_gives_what_it_gave(name: str) -> None:
    torch.manual_seed(0)
    trunk, pooling = build_backbone(name, find_weights("none", name), 64).cut(name, 0)
    network = _with_statistics(nn.Sequential(trunk, pooling))
    before, images = str(network), torch.randn(3, 3, 64, 64)
    wanted = network(images)
    folded = fold(network, images[:1])
    assert _norms(folded) <= 0.7 * _norms(network)
    torch.testing.assert_close(folded(images), wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))
    assert str(network) == before
    assert torch.equal(network(images), wanted)


@pytest.mark.parametrize(
    ("name", "size"), [("tf_efficientnet_lite0", 64), ("tf_efficientnet_lite0", 75), ("resnet18", 64)]
)
@pytest.mark.parametrize("kind", [nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish])
def test_on_a_cpu_convolutions_activate_and_pad(name: str, size: int, kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = _with_statistics(timm.create_model(name, act_layer=kind))
    images = torch.randn(3, 3, size, size)
    wanted = network(images)
    folded = fold(network, images[:1])
    assert not any(isinstance(module, Conv2dSame) for module in folded.modules())
    activations = sum(isinstance(module, kind) for module in network.modules())
    assert sum(isinstance(module, kind) for module in folded.modules()) <= 0.5 * activations
    torch.testing.assert_close(folded(images), wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        given, wanted = Folded(network)(images).float(), network(images).float()
    torch.testing.assert_close(given, wanted, rtol=0, atol=0.1 * float(wanted.abs().max()))


def test_what_else_takes_a_convolutions_output_keeps_it() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.act, self.norm = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(3)

        def forward(self, images: Tensor) -> Tensor:
            maps: Tensor = self.convolution(self.norm(images))
            return self.act(maps) + maps

    torch.manual_seed(0)
    network, images = _with_statistics(Beside()), torch.randn(2, 3, 8, 8)
    assert torch.equal(fold(network, images[:1])(images), network(images))


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18"])
def test_a_classifier_of_a_folded_trunk_explains_itself_as_before(name: str) -> None:
    torch.manual_seed(0)
    model = FeatureHead(num_classes=3, backbone=name, weights="none", image_size=64, tta_flip=True)
    _with_statistics(model)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    folded = fold_trunk(model)
    assert _norms(folded) < _norms(model)
    for given, wanted in zip(activation_maps(folded, images), activation_maps(model, images), strict=True):
        torch.testing.assert_close(given, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


class _Twice(nn.Module):
    """Normalise what one convolution gives in two ways, or take it a second time beside them."""

    def __init__(self, beside: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.first, self.second = nn.BatchNorm2d(4), BatchNormAct2d(4)
        self.beside = beside

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.convolution(images)
        other = maps if self.beside else self.second(maps)
        return self.first(maps) + other


@pytest.mark.parametrize("beside", [False, True])
def test_a_network_that_needs_what_lies_in_between_stays_as_it_is(beside: bool) -> None:
    torch.manual_seed(0)
    network = _with_statistics(_Twice(beside))
    assert str(fold(network, torch.randn(1, 3, 8, 8))) == str(network)


def test_weights_that_are_converted_once_give_what_autocast_gives_to_the_bit() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.LayerNorm(288), nn.Linear(288, 5)).eval()
    images, folded = torch.randn(4, 3, 8, 8), Folded(network)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(folded(images), network(images))
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_weights_that_a_layer_computes_with_itself_are_not_converted() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, images: Tensor) -> Tensor:
            weight = self.weight / self.weight.std((1, 2, 3), keepdim=True)
            return nn.functional.conv2d(images, weight, self.bias)

    torch.manual_seed(0)
    network, images = nn.Sequential(Standardised(3, 8, 3)).eval(), torch.randn(4, 3, 8, 8)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Folded(network)(images), network(images))
