from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from kth_lightning.errors import InputError
from kth_lightning.models import FeatureHead, FineTuned

CUT = ["test_resnet", "test_convnext", "test_efficientnet", "vgg11_bn"]
NAMED = ["resnet18", "convnext_atto", "tf_efficientnet_lite0"]
WHOLE = ["test_vit", "mobilenetv3_small_050", "test_mambaout"]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def network_of(name: str) -> nn.Module:
    """Draw a network of timm's whose normalisations have seen data, so that a wrong one shows."""
    torch.manual_seed(0)
    options = {"mlp_ratio": 1e-3} if name.startswith("vgg") else {}
    network = timm.create_model(name, num_classes=0, **options).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


def saved(network: nn.Module, folder: Path) -> str:
    torch.save(network.state_dict(), folder / "weights.pth")
    return str(folder / "weights.pth")


def as_timm_feeds(name: str, images: Tensor) -> Tensor:
    config = timm.get_pretrained_cfg(name)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))
    return (images / 255 - mean) / std


@pytest.mark.parametrize("name", CUT + NAMED + WHOLE)
def test_features_are_timms_own(name: str, images: Tensor, tmp_path: Path) -> None:
    network = network_of(name)
    if timm.get_pretrained_cfg(name).fixed_input_size:
        images = torch.nn.functional.interpolate(images, 160)
    model = FeatureHead(3, name, weights=saved(network, tmp_path), image_size=images.shape[-1]).eval()
    with torch.no_grad():
        maps = network.forward_features(as_timm_feeds(name, images))
        expected = maps.mean((2, 3)) if name.startswith("vgg") else network.forward_head(maps, pre_logits=True)
        found = model.features(images)
        assert found.shape == expected.shape
        assert found.std() > 1e-4
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
        assert model(images).shape == (2, 3)


@pytest.mark.parametrize("name", CUT)
def test_the_cut_changes_no_logits(name: str, images: Tensor, tmp_path: Path) -> None:
    weights = saved(network_of(name), tmp_path)
    whole = FeatureHead(3, name, weights=weights).eval()
    for stages in (1, 2):
        cut = FineTuned(3, name, trained_stages=stages, weights=weights).eval()
        cut.head.load_state_dict(whole.head.state_dict())
        assert any(parameter.requires_grad for parameter in cut.stages.parameters())
        with torch.no_grad():
            torch.testing.assert_close(cut(images), whole(images), rtol=1e-3, atol=1e-5)


def test_a_convnext_with_its_norm_before_the_pooling_works(images: Tensor) -> None:
    assert FeatureHead(3, "convnext_tiny_hnf", weights="none").eval()(images).isfinite().all()


def test_a_network_without_stages_is_refused_by_the_fine_tuned_model() -> None:
    with pytest.raises(InputError, match=r"vit_tiny_patch16_224 cannot be cut.*VGG, ResNet, EfficientNet and ConvNeXt"):
        FineTuned(3, "vit_tiny_patch16_224", weights="none")


@pytest.mark.parametrize(("stages", "message"), [(0, "at least one stage"), (6, "resnet10t has 5 stages; 6 was asked")])
def test_a_cut_that_is_not_there_is_refused(stages: int, message: str) -> None:
    with pytest.raises(InputError, match=rf"--model\.trained_stages: {message}"):
        FineTuned(3, "resnet10t", trained_stages=stages, weights="none")


def test_images_of_another_size_than_the_network_takes_are_refused() -> None:
    with pytest.raises(InputError, match=r"--data\.image_size 96: vit_tiny_patch16_224 takes images of 224 pixels"):
        FeatureHead(3, "vit_tiny_patch16_224", weights="none", image_size=96)


@pytest.mark.parametrize(
    ("name", "near"), [("vgg91", "vgg19"), ("resnet-18", "resnet18"), ("EfficientNet_b0", "efficientnet_b0")]
)
def test_an_unknown_backbone_names_near_ones(name: str, near: str) -> None:
    with pytest.raises(InputError, match=rf"--model\.backbone: timm has no backbone '{name}'; did you mean .*{near}"):
        FeatureHead(3, name, weights="none")
