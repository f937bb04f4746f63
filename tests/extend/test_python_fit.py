"""`fit` from Python is the command `fit`, on objects."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from torch import nn

from kth_lightning import BenchmarkCNN, FeatureHead, FolderSource, ImageData, Predictor, fit
from kth_lightning.cli.main import main
from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder

pytestmark = pytest.mark.slow

TRAINER: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "precision": "32-true"}


def tiny(data: ImageData, **settings: Any) -> BenchmarkCNN:
    L.seed_everything(0)
    settings = {"filters": [4, 8], "block_dropout": [0, 0]} | settings
    return BenchmarkCNN(data.num_classes, class_names=data.class_names, image_size=data.image_size, **settings)


def train(images: Path, run: Path, model: dict[str, Any] | None = None, **settings: Any) -> RunFolder:
    data = ImageData(root=str(images), image_size=32)
    return fit(tiny(data, **(model or {})), data, run, **{"max_epochs": 2} | TRAINER | settings)


def weights(run: RunFolder) -> dict[str, torch.Tensor]:
    return torch.load(run.best_checkpoint, weights_only=True)["state_dict"]


def assert_same_bits(run: RunFolder, other: RunFolder) -> None:
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert run.predictions.read_bytes() == other.predictions.read_bytes()


@pytest.fixture
def growing(images: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(images, tmp_path / "growing"))


def test_a_head_is_trained_on_stored_features_tested_and_predicts(images: Path, tmp_path: Path) -> None:
    data = ImageData(root=str(images), image_size=32)
    model = FeatureHead(3, "resnet10t", "none", class_names=data.class_names, image_size=32)
    run = fit(model, data, tmp_path / "run", max_epochs=2, monitor="val/loss_calibrated", **TRAINER)
    assert run.finished
    assert run.report.exists()
    assert run.read_metrics()["epochs"] == 2
    assert Predictor(run.best_checkpoint)(images / "class1/000.png").label in data.class_names
    assert list((Path(os.environ["KTH_LIGHTNING_CACHE"])).rglob("features*"))


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_its_figures_are_those_of_the_command_to_the_bit_and_each_knows_the_others_run(
    images: Path, tmp_path: Path, tiny_fit: Callable[..., list[str]], capsys: pytest.CaptureFixture, ema_decay: Any
) -> None:
    optimizer = {"optimizer": partial(torch.optim.AdamW, lr=0.01)}
    run = train(images, tmp_path / "python", optimizer, ema_decay=ema_decay)
    flags: list[object] = ["--data.root", images, "--model.optimizer", "AdamW", "--model.optimizer.lr", 0.01]
    flags += ["--trainer.precision", "32-true", "--ema_decay", "null" if ema_decay is None else ema_decay]
    command = RunFolder(tmp_path / "command")
    main(tiny_fit(command.path, *flags))
    assert_same_bits(run, command)
    capsys.readouterr()
    main(tiny_fit(run.path, *flags))
    assert "is finished" in capsys.readouterr().err
    train(images, command.path, optimizer, ema_decay=ema_decay)
    assert "is finished" in capsys.readouterr().err


def test_config_yaml_of_a_run_from_python_repeats_it_bit_for_bit(images: Path, tmp_path: Path) -> None:
    run = train(images, tmp_path / "python")
    again = RunFolder(tmp_path / "again")
    main(["fit", "--config", str(run.config), "--run_dir", str(again.path)])
    assert_same_bits(run, again)
    assert "seed_everything(0)" in run.config.read_text()


def test_a_killed_run_goes_on_bit_for_bit(images: Path, tmp_path: Path) -> None:
    straight = train(images, tmp_path / "straight", max_epochs=12, patience=99)
    killed = RunFolder(tmp_path / "killed")
    script = tmp_path / "lines.py"
    script.write_text(
        dedent(f"""
            from test_python_fit import *
            train(Path({str(images)!r}), Path({str(killed.path)!r}), max_epochs=12, patience=99)
        """)
    )
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    process = subprocess.Popen([sys.executable, script], stderr=subprocess.DEVNULL, env=environment)
    while not killed.last_checkpoint.exists() or len(killed.read_history()) < 3:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.metrics.exists()
    train(images, killed.path, max_epochs=12, patience=99)
    assert_same_bits(killed, straight)
    assert [row["epoch"] for row in killed.read_history()] == [row["epoch"] for row in straight.read_history()]


def test_a_finished_run_is_said_returned_and_left_alone(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = train(images, tmp_path / "run")
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    capsys.readouterr()
    assert train(images, run.path) == run
    assert "is finished; delete it to train it again" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()} == before


def test_images_that_were_added_are_refused_in_the_commands_sentence_or_left_out(
    growing: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    run = train(growing, tmp_path / "run")
    split = run.splits.read_bytes()
    shutil.copy(growing / "class0/000.png", growing / "class0/new.png")
    (growing / "class0/new.png").write_bytes((growing / "class0/new.png").read_bytes() + b"\0")
    with pytest.raises(InputError, match="1 is new") as refused:
        train(growing, run.path)
    assert refusal("fit", "--config", run.config, "--run_dir", run.path) == f"error: {refused.value}"
    run.metrics.unlink()
    before = run.predictions.read_bytes()
    train(growing, run.path, ignore_new=True)
    assert (run.splits.read_bytes(), run.predictions.read_bytes()) == (split, before)
    assert run.finished


@pytest.mark.parametrize(
    ("model", "settings", "sentence"),
    [
        ({"filters": [4, 4]}, {}, "another --model.init_args.filters"),
        ({"optimizer": torch.optim.Adam}, {}, "another --model.init_args.optimizer.class_path"),
        ({"optimizer": lambda params: torch.optim.SGD(params, lr=0.1)}, {}, "another --model.init_args.optimizer"),
        ({"loss": nn.CrossEntropyLoss(reduction="none")}, {}, "another --model.init_args.loss"),
        ({}, {"max_epochs": 3}, "a run keeps its length"),
        ({}, {"gradient_clip_val": 1.0}, "another --trainer.gradient_clip_val"),
        ({}, {"patience": 0}, "--patience 0"),
        ({}, {"max_epoch": 2}, "max_epoch"),
        ({"image_size": 64}, {}, "image_size=data.image_size"),
        ({"class_names": None}, {}, "class_names=data.class_names"),
        ({"class_weights": [1.0, 1.0, 2.0]}, {}, "class_weights=data.class_weights"),
        ({"value_range": [0.0, 9.0]}, {}, "value_range=data.value_range"),
    ],
)
def test_what_is_not_the_run_or_cannot_be_meant_is_refused_in_one_sentence(
    plain_run: RunFolder, images: Path, model: dict[str, Any], settings: dict[str, Any], sentence: str
) -> None:
    data = ImageData(root=str(images), image_size=32)
    made = BenchmarkCNN(
        **{"num_classes": 3, "class_names": data.class_names, "image_size": 32}
        | {"filters": [4, 8], "block_dropout": [0, 0]}
        | model
    )
    with pytest.raises(InputError, match=sentence) as refused:
        fit(made, data, plain_run.path, **{"max_epochs": 2} | TRAINER | settings)
    assert "\n" not in str(refused.value)


def test_other_objects_than_a_classifier_and_images_are_refused(images: Path, tmp_path: Path) -> None:
    data = ImageData(root=str(images), image_size=32)
    with pytest.raises(InputError, match=r"fit takes a kth_lightning\.Classifier as its model"):
        fit(L.LightningModule(), data, tmp_path / "run")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"fit takes a kth_lightning\.ImageData as its data"):
        fit(tiny(data), L.LightningDataModule(), tmp_path / "run")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory: pytest.TempPathFactory, images: Path) -> RunFolder:
    return train(images, tmp_path_factory.mktemp("runs") / "plain")


class Counting(L.Callback):
    epochs = 0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epochs += 1


def test_objects_without_a_class_path_are_told_and_go_the_whole_way(
    images: Path, tmp_path: Path, refusal: Callable[..., str], capsys: pytest.CaptureFixture
) -> None:
    def go(lr: float) -> RunFolder:
        data = ImageData(source=FolderSource(str(images)), augmentation=lambda i, k, v: i, views=2, image_size=32)
        loss = nn.CrossEntropyLoss(reduction="none", label_smoothing=0.1)
        model = tiny(data, loss=loss, optimizer=lambda params: torch.optim.SGD(params, lr=lr))
        return fit(model, data, tmp_path / "run", max_epochs=2, callbacks=callbacks, **TRAINER)

    callbacks = [Counting()]
    run = go(0.01)
    assert callbacks[0].epochs == 2
    assert len(callbacks) == 1
    config = yaml.safe_load(run.config.read_text())
    assert "SGD(lr=0.01" in config["model"]["init_args"]["optimizer"]
    assert "label_smoothing=0.1" in config["model"]["init_args"]["loss"]
    assert "FolderSource" in config["data"]["source"]
    assert config["trainer"]["callbacks"] == [f"<{Counting.__module__}.Counting>"]
    assert "What stands in <> was an object" in run.config.read_text()
    with pytest.raises(InputError, match=r"SGD\(lr=0.01.* there, .*SGD\(lr=0.02"):
        go(0.02)
    run.metrics.unlink()
    go(0.01)
    assert run.finished
    refusal("fit", "--config", run.config, "--run_dir", tmp_path / "other")
    main(["report", str(run.path)])
    main(["explain", "--ckpt_path", str(run.best_checkpoint), str(images), "--output", str(tmp_path / "maps")])
    main(["predict", "--ckpt_path", str(run.best_checkpoint), str(images), "--output", str(tmp_path / "labels.csv")])
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 61
