"""Frozen networks with their batch normalisation folded: the same figures, from fewer layers."""

from typing import Any

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn

from kth_lightning.explain.cam import activation_maps
from kth_lightning.models import Classifier, FeatureHead
from kth_lightning.models.backbone import build_backbone
from kth_lightning.models.folding import Folded, fold, fold_trunk
from kth_lightning.models.fusing import FusedConv2d
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
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
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
            self.convolution, self.norm, self.act = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()

        def forward(self, images: Tensor) -> Tensor:
            maps: Tensor = self.norm(self.convolution(images))
            return self.act(maps) + maps

    torch.manual_seed(0)
    network, images = _with_statistics(Beside()), torch.randn(2, 3, 8, 8)
    nn.init.constant_(network.norm.bias, 5)  # so that the activation changes nothing of a plain image
    folded = fold(network, torch.zeros(1, 3, 8, 8))
    torch.testing.assert_close(folded(10 * images), network(10 * images), rtol=0, atol=1e-4)


def test_a_processor_whose_oneDNN_lacks_bf16_computes_as_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = _with_statistics(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()))
    images, fused = torch.randn(4, 3, 8, 8), torch.ops.mkldnn._convolution_pointwise

    def only_float(images: Tensor, *others: Any) -> Tensor:
        if images.dtype != torch.float32:
            raise RuntimeError("mkldnn_convolution: bf16 path needs the cpu support")
        result: Tensor = fused(images, *others)
        return result

    monkeypatch.setattr(torch.ops.mkldnn, "_convolution_pointwise", only_float)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(Folded(network)(images), network(images), rtol=0, atol=0.05)
    assert any(isinstance(module, FusedConv2d) for module in fold(network, images[:1]).modules())


def test_networks_of_other_numbers_than_float32_stay_as_they_are() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval().double()
    assert fold(network, torch.randn(1, 3, 8, 8)) is network


class _Shared(Classifier):
    """Use a block at the end of the trunk and in the tail again, on maps of another size."""

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        self.block = nn.Sequential(Conv2dSame(8, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 1), self.block)
        self.dense = nn.Linear(8, num_classes)

    def tail(self, features: Tensor) -> Tensor:
        logits: Tensor = self.dense(self.block(features).mean((2, 3)))
        return logits


def test_a_block_that_the_tail_has_too_still_pads_for_it() -> None:
    torch.manual_seed(0)
    model = _Shared(3, image_size=34).eval()
    _with_statistics(model)
    images = torch.randint(0, 256, (2, 3, 34, 34), dtype=torch.uint8)
    torch.testing.assert_close(fold_trunk(model)(images), model(images), rtol=0, atol=1e-5)


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


def test_a_trunk_is_folded_under_autocast_as_well() -> None:
    torch.manual_seed(0)
    model = FeatureHead(num_classes=3, backbone="tf_efficientnet_lite0", weights="none", image_size=64)
    _with_statistics(model)
    with torch.autocast("cpu", torch.bfloat16):
        folded = fold_trunk(model)
    assert _norms(folded) < _norms(model)


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
