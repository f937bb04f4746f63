from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kth_lightning.errors import InputError
from kth_lightning.explain.cam import activation_maps
from kth_lightning.models import BenchmarkCNN, Classifier, FeatureHead, FineTuned

EXACT = {
    "benchmark": lambda: BenchmarkCNN(5, filters=(8, 16, 16), block_dropout=(0.0, 0.4, 0.5), batch_norm=True),
    "head on VGG": lambda: FeatureHead(5, "vgg11", weights="none"),
    "head on ResNet": lambda: FeatureHead(5, "test_resnet", weights="none"),
    "fine-tuned VGG": lambda: FineTuned(5, "vgg11", weights="none"),
    "head on a vision transformer": lambda: FeatureHead(5, "vit_tiny_patch16_224", weights="none", image_size=64),
    "fine-tuned EfficientNet": lambda: FineTuned(5, "test_efficientnet", trained_stages=2, weights="none"),
}


def shaken(model: Classifier) -> Classifier:
    """Give the dense layer a bias and logits that differ."""
    torch.manual_seed(0)
    nn.init.normal_(model.head[1].weight)
    nn.init.normal_(model.head[1].bias)
    return model


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tta_flip", [False, True])
@pytest.mark.parametrize("kind", EXACT)
def test_the_mean_of_a_map_is_its_logit_above_the_mean_logit(kind: str, tta_flip: bool, images: Tensor) -> None:
    model = shaken(EXACT[kind]())
    model.tta_flip = tta_flip
    logits, maps = activation_maps(model, images)
    with torch.no_grad():
        assert torch.allclose(logits, model.eval()(images), atol=1e-5)
    assert maps.shape[:2] == (2, 5)
    assert maps.shape[2] == maps.shape[3] > 1
    assert torch.allclose(maps.mean((2, 3)), logits - logits.mean(1, keepdim=True), atol=1e-4)
    assert maps.flatten(2).std(2).min() > 1e-6


def test_a_map_lies_where_its_class_is_seen(images: Tensor) -> None:
    model = BenchmarkCNN(3, filters=(3,), block_dropout=(0.0,))
    with torch.no_grad():
        model.blocks[0][0].weight.zero_()[range(3), range(3), 1, 1] = 1  # each channel as it is
        model.head[1].weight.copy_(torch.eye(3))
    images = torch.zeros(1, 3, 64, 64)
    images[0, 1, :16, 32:48] = 255
    _, maps = activation_maps(model, images, "predicted")
    position = torch.zeros(32, 32, dtype=torch.bool)
    position[:8, 16:24] = True
    assert maps[0, 0][position].min() > 0.6
    assert maps[0, 0][~position].abs().max() < 1e-6


@pytest.mark.parametrize("model", [EXACT["benchmark"], lambda: FeatureHead(5, "test_byobnet", weights="none")])
def test_maps_of_a_model_that_looks_at_mirror_images_are_mirrored_with_the_image(
    model: Callable[[], Classifier], images: Tensor
) -> None:
    mirroring = shaken(model())
    mirroring.tta_flip = True
    logits, maps = activation_maps(mirroring, images)
    other_logits, other_maps = activation_maps(mirroring, images.flip(3))
    assert torch.allclose(logits, other_logits, atol=1e-5)
    assert torch.allclose(maps, other_maps.flip(3), atol=1e-5)
    assert not torch.allclose(maps, maps.flip(3), atol=1e-3)


def test_the_wanted_maps_are_picked_for_each_image(images: Tensor) -> None:
    model = shaken(FeatureHead(5, "test_resnet", weights="none"))
    logits, maps = activation_maps(model, images)
    _, predicted = activation_maps(model, images, "predicted")
    _, chosen = activation_maps(model, images, torch.tensor([[4, 0], [2, 3]]))
    assert torch.equal(predicted, torch.stack([maps[row, [best]] for row, best in enumerate(logits.argmax(1))]))
    assert torch.equal(chosen, torch.stack([maps[0, [4, 0]], maps[1, [2, 3]]]))


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_convnext"])
def test_mixed_precision_and_inference_mode_change_no_more_than_rounding(backbone: str, images: Tensor) -> None:
    model = shaken(FeatureHead(5, backbone, weights="none"))
    logits, maps = activation_maps(model, images)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        mixed_logits, mixed_maps = activation_maps(model, images)
    assert (mixed_logits.dtype, mixed_maps.dtype) == (torch.float32, torch.float32)
    assert torch.allclose(mixed_logits, logits, atol=0.02 * float(logits.abs().max()))
    assert torch.allclose(mixed_maps, maps, atol=0.02 * float(maps.abs().max()))
    if backbone == "test_efficientnet":
        assert torch.allclose(mixed_maps.mean((2, 3)), mixed_logits - mixed_logits.mean(1, keepdim=True), atol=1e-4)


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_convnext"])
def test_the_model_is_left_as_it_was(backbone: str, images: Tensor) -> None:
    model = shaken(FineTuned(5, backbone, weights="none"))
    model.train()
    model.head.eval()
    before = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    activation_maps(model, images)
    assert [module.training for module in model.modules()] == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(value.equal(state[key]) for key, value in model.state_dict().items())


class Untold(FeatureHead):
    """A head on a global average that does not say so."""

    def class_activation(self) -> None:
        return None


def test_grad_cam_agrees_with_the_exact_map_where_both_are_known(images: Tensor) -> None:
    exact, _ = shaken(FeatureHead(5, "test_byobnet", weights="none")), torch.manual_seed(0)
    model = shaken(Untold(5, "test_byobnet", weights="none"))
    model.load_state_dict(exact.state_dict())
    _, maps = activation_maps(model, images)
    _, expected = activation_maps(exact, images)
    expected = (expected - (model.head[1].bias - model.head[1].bias.mean()).view(1, -1, 1, 1)) / 4
    assert maps.shape == expected.shape
    assert torch.allclose(maps, expected.clamp(min=0), atol=1e-5)
    assert maps.max() > 1e-3


def test_grad_cam_reaches_through_a_frozen_trunk(images: Tensor) -> None:
    for model in (FeatureHead(5, "test_convnext", weights="none"), FineTuned(5, "test_convnext", weights="none")):
        logits, maps = activation_maps(shaken(model).eval().requires_grad_(False), images, torch.tensor([[0, 3]] * 2))
        assert maps.shape == (2, 2, 2, 2)
        assert maps.min() >= 0
        assert maps.amax((2, 3)).max() > 0
        assert not torch.equal(maps[:, 0], maps[:, 1])
        with torch.no_grad():
            assert torch.allclose(logits, model(images), atol=1e-5)


def test_a_network_without_maps_is_refused_in_a_sentence() -> None:
    class Flat(Classifier):
        def __init__(self, num_classes: int) -> None:
            super().__init__(num_classes)
            self.dense = nn.Linear(192, num_classes)

        def tail(self, features: Tensor) -> Tensor:
            return self.dense(features.flatten(1))

    for model in (Flat(5), FeatureHead(5, "crossvit_tiny_240", weights="none", image_size=240)):
        with pytest.raises(InputError, match="has no maps"):
            activation_maps(model, torch.zeros(1, 3, *(8 if isinstance(model, Flat) else 240,) * 2))
