import csv
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kth_lightning.cli.main import main
from kth_lightning.evaluation.calibration import apply_temperature, fit_temperature
from kth_lightning.evaluation.statistics import cross_entropies
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models.checkpoint import load_classifier

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def draw(folder: Path, brightest: int, shift: int, wrong: Collection[int]) -> Path:
    """Draw red and green images, some in the other's folder."""
    rng = np.random.default_rng(0)
    for position, name in enumerate(("red", "green")):
        (folder / name).mkdir()
        for number in range(24):
            pixels = rng.integers(brightest, size=(64, 64, 3), dtype=np.uint8)
            pixels[..., 1 - position if number in wrong else position] += shift
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give images on which a classifier is too sure of itself."""
    return draw(tmp_path_factory.mktemp("noise"), brightest=128, shift=100, wrong=range(0, 24, 6))


def fit(noise: Path, run_dir: Path) -> list[str]:
    args = ["fit", "--config", str(ROOT / "configs/head.yaml"), "--data.root", str(noise), "--run_dir", str(run_dir)]
    args += ["--data.image_size", "64", "--data.val_size", "16", "--data.augmentation", "standard", "--data.views", "3"]
    args += ["--data.batch_size", "20", "--model.optimizer.lr", "0.003", "--ema_decay", "0.99"]
    args += ["--trainer.max_epochs", "3"]
    return [*args, "--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.precision", "32-true"]


@pytest.fixture(scope="module")
def finished(noise: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run_dir = tmp_path_factory.mktemp("runs") / "head"
    main(fit(noise, run_dir))
    return RunFolder(run_dir)


def test_the_temperature_is_fitted_to_the_validation_images_of_the_best_epoch(finished: RunFolder, noise: Path) -> None:
    model = load_classifier(finished.best_checkpoint)
    with finished.splits.open(encoding="utf-8") as stream:
        paths = [row["path"] for row in csv.DictReader(stream) if row["part"] == "val"]
    pixels = np.stack([model.square.pixels(Image.open(noise / path)) for path in paths])
    with torch.no_grad():
        logits = model(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    labels = np.array([model.class_names.index(Path(path).parent.name) for path in paths])
    assert len(paths) == 16
    assert model.temperature == pytest.approx(fit_temperature(labels, logits.numpy()), rel=1e-3)
    assert abs(model.temperature - 1) > 0.01
    assert model.temperature == finished.read_metrics()["temperature"]


def test_metrics_say_what_the_temperature_is_worth_on_the_test_images(finished: RunFolder) -> None:
    metrics, predictions = finished.read_metrics(), finished.read_predictions()
    calibrated = apply_temperature(predictions.probabilities, metrics["temperature"])
    test = metrics["test"]
    assert test["loss_calibrated"] == pytest.approx(cross_entropies(predictions.labels, calibrated).mean(), abs=1e-6)
    assert 0 <= test["ece_calibrated"] <= 1
    assert test["ece_calibrated"] != test["ece"]
    assert test["loss"]["value"] == pytest.approx(
        cross_entropies(predictions.labels, predictions.probabilities).mean(), abs=1e-6
    )


def test_fitting_the_temperature_leaves_the_history_alone(finished: RunFolder) -> None:
    history, metrics = finished.read_history(), finished.read_metrics()
    assert [row["epoch"] for row in history] == list(range(metrics["epochs"])) == [0, 1, 2]


def test_a_run_killed_before_its_test_is_tested_with_the_temperature_it_has(finished: RunFolder, noise: Path) -> None:
    metrics, checkpoint = finished.read_metrics(), finished.best_checkpoint.read_bytes()
    finished.metrics.unlink()
    main(fit(noise, finished.path))
    assert finished.best_checkpoint.read_bytes() == checkpoint
    again = finished.read_metrics()
    assert (again["temperature"], again["test"]) == (metrics["temperature"], metrics["test"])


def test_a_run_killed_before_its_best_checkpoint_was_complete_is_completed(finished: RunFolder, noise: Path) -> None:
    metrics = finished.read_metrics()
    checkpoint = torch.load(finished.best_checkpoint, weights_only=True)
    for key in [key for key in checkpoint["state_dict"] if key.startswith("trunk.")]:
        del checkpoint["state_dict"][key]
    del checkpoint["hyper_parameters"]["temperature"], checkpoint["complete"]
    torch.save(checkpoint, finished.best_checkpoint)
    finished.metrics.unlink()
    main(fit(noise, finished.path))
    assert load_classifier(finished.best_checkpoint).temperature == metrics["temperature"]
    assert finished.read_metrics()["test"] == metrics["test"]


def test_the_best_epoch_can_be_that_of_the_lowest_loss_after_the_temperature(tmp_path: Path) -> None:
    (tmp_path / "faint").mkdir()
    faint = draw(tmp_path / "faint", brightest=156, shift=16, wrong=())
    flags = ["--trainer.max_epochs", "8", "--model.label_smoothing", "0.6", "--monitor", "val/loss_calibrated"]
    main([*fit(faint, tmp_path / "run"), *flags])
    run = RunFolder(tmp_path / "run")
    history, metrics = run.read_history(), run.read_metrics()
    best = min(history, key=lambda row: row["val/loss_calibrated"])
    assert metrics["best_epoch"] == best["epoch"] > min(history, key=lambda row: row["val/loss"])["epoch"]
    assert metrics["val"]["loss_calibrated"] == best["val/loss_calibrated"] < best["val/loss"]
    assert torch.load(run.best_checkpoint, weights_only=True)["epoch"] == best["epoch"]

    validate = ["validate", "--config", str(run.config), "--ckpt_path", str(run.best_checkpoint)]
    main([*validate, "--run_dir", str(tmp_path / "evaluation")])
    shown = EventAccumulator(str(run.path)).Reload().Scalars("val/loss_calibrated")
    assert [item.value for item in shown] == pytest.approx([row["val/loss_calibrated"] for row in history])
