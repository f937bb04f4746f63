from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kth_lightning.errors import InputError
from kth_lightning.models import FeatureHead, FineTuned
from kth_lightning.testing import check_classifier

STAGES = {
    **{"test_resnet": 5, "test_convnext": 5, "test_efficientnet": 7, "vgg11_bn": 5, "test_nfnet": 6},
    **{"resnet18": 5, "tf_efficientnet_lite0": 9, "mobilenetv3_small_050": 7, "regnetx_002": 5, "densenet121": 8},
    **{"test_mambaout": 5, "swin_tiny_patch4_window7_224": 5, "efficientvim_m1": 2},
}
"""Networks whose pooled features are timm's own, and how many stages timm names in them."""

TOKENS = ["test_vit", "vit_tiny_patch16_224", "vit_small_patch14_dinov2", "deit_tiny_distilled_patch16_224"]
ROPE = "vit_tiny_patch16_dinov3_qkvb"
"""A vision transformer whose blocks take a second tensor, which depends on the images' size alone."""

WHOLE = ["crossvit_tiny_240"]


def known(*names: str) -> list[Any]:
    """Give the names, those that the installed timm does not know yet as tests that are skipped."""
    lacking = pytest.mark.skip(reason="this timm does not know the network")
    return [name if timm.is_model(name) else pytest.param(name, marks=lacking) for name in names]


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


def sized_for(network: Any, images: Tensor) -> Tensor:
    """Have a network take the images, or make them of its size."""
    if hasattr(network, "set_input_size"):
        network.set_input_size(img_size=images.shape[-1])
    elif network.pretrained_cfg["fixed_input_size"]:
        return F.interpolate(images, network.pretrained_cfg["input_size"][1])
    return images


@pytest.mark.slow
@pytest.mark.parametrize("name", known(*STAGES, *WHOLE))
def test_features_are_timms_own(name: str, images: Tensor, tmp_path: Path) -> None:
    network = network_of(name)
    weights, images = saved(network, tmp_path), sized_for(network, images)
    model = FeatureHead(3, name, weights=weights, image_size=images.shape[-1]).eval()
    with torch.no_grad():
        inputs = as_timm_feeds(name, images)
        vgg = name.startswith("vgg")
        expected = network.forward_features(inputs).mean((2, 3)) if vgg else network(inputs)
        found = model.features(images)
        assert found.shape == expected.shape
        assert found.std() > 1e-4
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
        assert model(images).shape == (2, 3)


@pytest.mark.parametrize("name", TOKENS)
def test_a_vision_transformer_is_pooled_over_its_patches(name: str, images: Tensor, tmp_path: Path) -> None:
    network = network_of(name)
    weights, sized = saved(network, tmp_path), F.interpolate(images, 2 * network.patch_embed.patch_size[0])
    sized_for(network, sized)
    model = FeatureHead(3, name, weights=weights, image_size=sized.shape[-1]).eval()
    with torch.no_grad():
        tokens = network.forward_features(as_timm_feeds(name, sized))
        expected = network.fc_norm(tokens[:, network.num_prefix_tokens :].mean(1))
        torch.testing.assert_close(model.features(sized), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", known(*STAGES, "test_vit", "vit_tiny_patch16_224", ROPE))
def test_the_cut_changes_no_logits(name: str, images: Tensor, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"weights": saved(network_of(name), tmp_path), "image_size": images.shape[-1]}
    whole = FeatureHead(3, name, **settings).eval()
    for stages in (1, STAGES.get(name, 3) - 1):
        cut = FineTuned(3, name, trained_stages=stages, **settings).eval()
        cut.head.load_state_dict(whole.head.state_dict())
        assert any(parameter.requires_grad for parameter in cut.stages.parameters())
        assert any(parameter.ndim > 1 for parameter in cut.trunk.parameters())
        with torch.no_grad():
            torch.testing.assert_close(cut(images), whole(images), rtol=1e-3, atol=1e-5)
    if name in STAGES:
        with pytest.raises(InputError, match=f"{name} has {STAGES[name]} stages; 99 was asked for"):
            FineTuned(3, name, trained_stages=99, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("name", known(ROPE, "efficientvim_m1"))
def test_a_network_whose_modules_take_more_than_one_tensor_is_fine_tuned(name: str) -> None:
    check_classifier(FineTuned, backbone=name, weights="none")
    model = FineTuned(3, name, weights="none", image_size=64)
    network = timm.create_model(name, num_classes=0)
    trained = sum(item.numel() for item in model.stages.parameters())
    kept = sum(item.numel() for item in model.trunk.parameters())
    assert min(trained, kept) > 0
    assert trained + kept < 1.1 * sum(item.numel() for item in network.parameters())


@pytest.mark.slow
def test_a_network_whose_modules_return_a_size_beside_their_data_is_fine_tuned() -> None:
    model = FineTuned(3, "mvitv2_tiny", weights="none", image_size=224).eval()
    assert min(sum(item.numel() for item in part.parameters()) for part in (model.trunk, model.stages)) > 0
    assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 3)


def test_stages_are_cut_where_the_articles_network_was() -> None:
    trunk, stages = (FineTuned(3, weights="none").get_submodule(part) for part in ("trunk", "stages"))
    assert [type(layer).__name__ for layer in stages[0]] == ["Conv2d", "ReLU"] * 4 + ["MaxPool2d"]
    assert [len(stage) for stage in trunk] == [5, 5, 9, 9]
    lite = FineTuned(3, "tf_efficientnet_lite0", trained_stages=2, weights="none")
    assert [name for name, _ in lite.stages.named_parameters()][-3:] == ["1.0.weight", "1.1.weight", "1.1.bias"]


def test_a_convnext_with_its_norm_before_the_pooling_works(images: Tensor) -> None:
    assert FeatureHead(3, "convnext_tiny_hnf", weights="none").eval()(images).isfinite().all()


def test_a_network_that_is_no_row_of_stages_is_refused_by_the_fine_tuned_model() -> None:
    with pytest.raises(InputError, match=r"crossvit_tiny_240 cannot be cut into stages, since several tensors"):
        FineTuned(3, "crossvit_tiny_240", weights="none", image_size=240)


@pytest.mark.parametrize(("stages", "message"), [(0, "at least one stage"), (6, "resnet10t has 5 stages; 6 was asked")])
def test_a_cut_that_is_not_there_is_refused(stages: int, message: str) -> None:
    with pytest.raises(InputError, match=rf"--model\.trained_stages: {message}"):
        FineTuned(3, "resnet10t", trained_stages=stages, weights="none")


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vit_tiny_patch16_224", 100, r"looks at patches of 16 pixels; give a multiple of that, such as 96"),
        ("vit_small_patch14_dinov2", 128, r"looks at patches of 14 pixels; give a multiple of that, such as 126"),
        ("gmlp_s16_224", 96, "takes images of 224 pixels only"),
        ("inception_v3", 32, "does not take images of that size"),
    ],
)
def test_images_of_a_size_that_the_network_does_not_take_are_refused(name: str, size: int, message: str) -> None:
    with pytest.raises(InputError, match=rf"--data\.image_size {size}: {name} {message}"):
        FeatureHead(3, name, weights="none", image_size=size)


@pytest.mark.parametrize(
    ("name", "near"), [("vgg91", "vgg19"), ("resnet-18", "resnet18"), ("EfficientNet_b0", "efficientnet_b0")]
)
def test_an_unknown_backbone_names_near_ones(name: str, near: str) -> None:
    with pytest.raises(InputError, match=rf"--model\.backbone: timm has no backbone '{name}'; did you mean .*{near}"):
        FeatureHead(3, name, weights="none")
