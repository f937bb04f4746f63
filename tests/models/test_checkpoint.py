from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch

from kth_lightning.cli.main import main
from kth_lightning.data.module import ImageData
from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models import FeatureHead
from kth_lightning.models.checkpoint import load_classifier

pytestmark = pytest.mark.slow

SMALL = ["--data.image_size", "64", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"]
SMALL += ["--trainer.devices", "1", "--trainer.precision", "32"]


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Callable[..., RunFolder]:
    def train(model: str, *flags: str) -> RunFolder:
        run = tmp_path_factory.mktemp("run")
        main(["fit", "--model", model, "--data.root", str(images), "--run_dir", str(run), *SMALL, *flags])
        return RunFolder(run)

    return train


@pytest.fixture(scope="module")
def head(fit: Callable[..., RunFolder]) -> RunFolder:
    return fit("FeatureHead", "--model.weights", "none", "--model.backbone", "tf_efficientnet_lite0")


def probabilities(run: RunFolder, images: Path) -> torch.Tensor:
    data = ImageData(root=str(images), image_size=64)
    data.prepare_data()
    data.setup("test")
    index = torch.from_numpy(data.split.indices("test"))
    model = load_classifier(run.best_checkpoint)
    with torch.no_grad():
        return model(data.images(index, torch.zeros_like(index), torch.device("cpu"))).double().softmax(1)


@pytest.mark.parametrize("model", ["head", "benchmark", "finetune"])
def test_a_checkpoint_alone_predicts_what_its_run_wrote(
    model: str, head: RunFolder, fit: Callable[..., RunFolder], images: Path
) -> None:
    frozen = ["--model.weights", "none", "--model.backbone", "tf_efficientnet_lite0"]
    run = head if model == "head" else fit("BenchmarkCNN") if model == "benchmark" else fit("FineTuned", *frozen)
    written = torch.from_numpy(run.read_predictions().probabilities)
    assert torch.allclose(probabilities(run, images), written, atol=1e-6)


def test_it_knows_its_classes_and_images_and_is_ready_to_predict(head: RunFolder) -> None:
    model = load_classifier(head.best_checkpoint)
    assert model.class_names == ["class0", "class1", "class2"]
    assert (model.image_size, model.interpolation) == (64, "bilinear")
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_what_is_no_completed_checkpoint_of_ours_is_refused_in_a_sentence(head: RunFolder, tmp_path: Path) -> None:
    whole = head.best_checkpoint.read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    for name in ("cut", "text", "foreign"):
        with pytest.raises(InputError, match=rf"--ckpt_path: .*{name}.ckpt is not a checkpoint of kth_lightning"):
            load_classifier(tmp_path / f"{name}.ckpt")
    with pytest.raises(InputError, match="there is no file"):
        load_classifier(tmp_path / "missing.ckpt")


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "ran",)

    torch.save(
        {"format": 1, "weights_sha256": "", "state_dict": {}, "hyper_parameters": Hostile()}, tmp_path / "hostile.ckpt"
    )
    with pytest.raises(InputError, match="is not a checkpoint"):
        load_classifier(tmp_path / "hostile.ckpt")
    assert not (tmp_path / "ran").exists()


def test_settings_that_this_version_does_not_know_are_refused_in_a_sentence(head: RunFolder, tmp_path: Path) -> None:
    checkpoint = torch.load(head.best_checkpoint, weights_only=True)
    checkpoint["hyper_parameters"]["novelty"] = 1
    torch.save(checkpoint, tmp_path / "newer.ckpt")
    with pytest.raises(InputError, match="does not fit this version of kth_lightning"):
        load_classifier(tmp_path / "newer.ckpt")


def test_a_checkpoint_without_its_frozen_weights_says_which_has_them(
    fit: Callable[..., RunFolder], images: Path, tmp_path: Path
) -> None:
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "frozen.pth")
    run = fit("FeatureHead", "--model.weights", str(tmp_path / "frozen.pth"), "--model.backbone", "resnet10t")
    last = run.checkpoints / "last.ckpt"
    load_classifier(last)
    (tmp_path / "frozen.pth").unlink()
    with pytest.raises(InputError, match=r"lacks the frozen weights, which best.ckpt has: .*there is no file"):
        load_classifier(last)
    load_classifier(run.best_checkpoint)


def test_lightning_itself_loads_a_checkpoint(head: RunFolder) -> None:
    ours, lightnings = load_classifier(head.best_checkpoint), FeatureHead.load_from_checkpoint(head.best_checkpoint)
    assert lightnings.temperature == ours.temperature
    assert all(value.equal(lightnings.state_dict()[key]) for key, value in ours.state_dict().items())
