import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from kth_lightning import ImageData, Predictor
from kth_lightning.callbacks.training_summary import summarise_training
from kth_lightning.cli.main import main
from kth_lightning.evaluation import novelty
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.split_file import read_split
from kth_lightning.models.checkpoint import load_classifier, read_checkpoint
from kth_lightning.models.embedding import embed_features

HEAD = ["--model", "FeatureHead", "--model.backbone", "test_efficientnet", "--model.weights", "none"]
SMALL = ["--data.image_size", "32", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, images: Path) -> RunFolder:
    """Train a head on stored views of the images."""
    folder = tmp_path_factory.mktemp("runs") / "head"
    views = [
        "--data.augmentation",
        "flip",
        "--data.views",
        "2",
        "--data.val_size",
        "21",
        "--trainer.precision",
        "32",
        "--trainer.logger",
        "false",
    ]
    main(["fit", *HEAD, *SMALL, *views, "--data.root", str(images), "--run_dir", str(folder)])
    return RunFolder(folder)


def data_of(run: RunFolder, images: Path, views: int | None = None) -> ImageData:
    data = ImageData(root=str(images), image_size=32, splits=str(run.splits), augmentation="flip", views=views)
    data.setup("fit")
    return data


def directions(run: RunFolder, data: ImageData, view: int) -> Tensor:
    model, index = load_classifier(run.best_checkpoint), torch.from_numpy(data.split.indices("train"))
    with torch.no_grad():
        vectors = embed_features(model, model.features(data.images(index, torch.full_like(index, view), model.device)))
    return functional.normalize(vectors - novelty.CENTRED * vectors.mean(0))


@pytest.mark.slow
def test_a_checkpoint_keeps_the_vectors_of_its_training_images(run: RunFolder, images: Path) -> None:
    data = data_of(run, images, views=2)
    kept = read_checkpoint(run.best_checkpoint)["novelty"]
    assert torch.equal(kept["keys"], data.keys[data.split.indices("train")])
    expected = directions(run, data, view=1)
    assert torch.allclose(kept["images"].float(), expected, atol=2e-3)
    assert not torch.allclose(kept["images"].float(), directions(run, data, view=0), atol=2e-3)


def test_validation_images_say_what_is_usual_and_predictions_and_explanations_agree(
    run: RunFolder, images: Path, tmp_path: Path
) -> None:
    files = [images / row.path for row in read_split(run.splits) if row.part == "val"]
    shares = np.array([item.novelty for item in Predictor(run.best_checkpoint, "cpu")(files)])
    assert np.sort(shares) == pytest.approx(np.arange(1, 22) / 22, abs=0.01)
    main(["explain", *map(str, files), "--ckpt_path", str(run.best_checkpoint), "--output", str(tmp_path)])
    with (tmp_path / "explain.csv").open(encoding="utf-8", newline="") as stream:
        explained = [float(row["novelty"]) for row in csv.DictReader(stream)]
    assert explained == pytest.approx(shares.tolist(), abs=0.01)


def test_without_stored_features_clean_images_make_the_summary_and_no_more_than_may_be_kept(
    run: RunFolder, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = data_of(run, images), load_classifier(run.best_checkpoint)
    with torch.no_grad():
        val = torch.from_numpy(data.split.indices("val"))
        logits = model(data.images(val, torch.zeros_like(val), model.device))
        whole = summarise_training(model, data, (None, None), val, logits)
        assert whole is not None
        assert torch.allclose(whole.images.float(), directions(run, data, view=0), atol=2e-3)
        assert whole.scores is not None
        assert len(whole.scores) == len(val) == 21
        width = whole.images.shape[1]
        monkeypatch.setattr(novelty, "MOST_BYTES", 4 * (width + novelty.MOST_SCORES + 2) + (2 * width + 12) * 12)
        few = summarise_training(model, data, (None, None), val, logits)
    assert few is not None
    position = {int(key): place for place, key in enumerate(data.keys)}
    assert np.bincount([int(data.labels[position[int(key)]]) for key in few.keys]).tolist() == [4, 4, 4]


def test_a_run_of_too_few_images_finishes_without_a_summary(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    folder = make_folder(tmp_path / "few", classes=2, images=4)
    flags = ["--data.root", str(folder), "--data.val_size", "2", "--data.test_size", "2", "--trainer.logger", "false"]
    main(["fit", *HEAD, *SMALL, *flags, "--run_dir", str(tmp_path / "run")])
    checkpoint = read_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert checkpoint["novelty"] is None
    assert RunFolder(tmp_path / "run").finished
