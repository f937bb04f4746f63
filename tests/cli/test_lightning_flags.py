"""What Lightning documents of the trainer's flags, through the real command."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.accelerators import CUDAAccelerator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder


@pytest.fixture
def fit(images: Path, tmp_path: Path) -> Callable[..., RunFolder]:
    """Train the smallest CNN on 48 images in batches of 8: six batches an epoch."""

    def run(*flags: object, name: str = "run") -> RunFolder:
        args = ["fit", "--model", "BenchmarkCNN", "--model.filters", "[4,8]", "--model.block_dropout", "[0,0]"]
        args += ["--data.root", str(images), "--data.image_size", "32", "--data.batch_size", "8"]
        args += ["--data.val_size", "6", "--data.test_size", "6", "--trainer.max_epochs", "4"]
        args += ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.precision", "32"]
        main([*args, "--run_dir", str(tmp_path / name), *map(str, flags)])
        return RunFolder(tmp_path / name)

    return run


def shown(run: RunFolder, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in EventAccumulator(str(run.path)).Reload().Scalars(tag)]


def validated(run: RunFolder) -> list[dict[str, float]]:
    return [row for row in run.read_history() if math.isfinite(row["val/loss"])]


def check_best(run: RunFolder) -> None:
    """Hold figures and checkpoint of the best epoch against the history."""
    metrics, best = run.read_metrics(), min(validated(run), key=lambda row: row["val/loss"])
    assert metrics["val"]["loss"] == best["val/loss"]
    assert metrics["best_epoch"] == best["epoch"]
    assert torch.load(run.best_checkpoint, weights_only=True)["global_step"] == best["step"]


def test_a_gpu_that_is_left_alone_on_purpose_is_not_asked_after(
    fit: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: True))
    fit("--trainer.max_epochs", 1)
    assert not [warning for warning in recwarn if "GPU" in str(warning.message)]


@pytest.mark.slow
def test_one_batch_is_not_all_of_them(fit: Callable[..., RunFolder]) -> None:
    one = fit("--trainer.limit_train_batches", 1, name="one")
    whole = fit("--trainer.limit_train_batches", 1.0, name="whole")
    assert [run.read_history()[-1]["step"] for run in (one, whole)] == [4, 24]


@pytest.mark.slow
def test_a_run_that_validates_every_other_epoch(fit: Callable[..., RunFolder]) -> None:
    run = fit("--trainer.check_val_every_n_epoch", 2, "--ema_decay", 0.9)
    history = run.read_history()
    assert [row["epoch"] for row in history] == [0, 1, 2, 3]
    assert [row["epoch"] for row in validated(run)] == [1, 3]
    assert all(math.isfinite(row["train/loss"]) for row in history)
    assert run.read_metrics()["epochs"] == 4
    check_best(run)
    assert shown(run, "val/loss") == [(row["epoch"], pytest.approx(row["val/loss"])) for row in validated(run)]
    assert [step for step, _ in shown(run, "train/loss")] == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_run_that_validates_twice_an_epoch(fit: Callable[..., RunFolder]) -> None:
    run = fit("--trainer.val_check_interval", 0.5, "--monitor", "val/loss_calibrated")
    history = run.read_history()
    assert [(row["epoch"], row["step"]) for row in history] == [(step // 6, step + 3) for step in range(0, 24, 3)]
    assert [math.isfinite(row["train/loss"]) for row in history] == [False, True] * 4
    assert len(validated(run)) == 8
    metrics = run.read_metrics()
    assert metrics["epochs"] == 4
    assert metrics["val"]["loss_calibrated"] == min(row["val/loss_calibrated"] for row in history)
    values = [row["val/loss"] for row in history]
    assert shown(run, "val/loss") == [(3 * number + 2, pytest.approx(loss)) for number, loss in enumerate(values)]


def test_patience_counts_validations(fit: Callable[..., RunFolder]) -> None:
    run = fit("--model.optimizer.lr", 0, "--patience", 3, "--trainer.val_check_interval", 2, "--trainer.min_epochs", 1)
    assert [row["step"] for row in validated(run)] == [2, 4, 6, 8]


@pytest.mark.parametrize(("part", "name"), [("val", "validation"), ("test", "test")])
def test_a_share_of_less_than_a_batch_is_refused_before_any_training(
    fit: Callable[..., RunFolder], tmp_path: Path, part: str, name: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit, match="2"):
        fit(f"--trainer.limit_{part}_batches", 0.5)
    assert f"limit_{part}_batches 0.5: the 6 {name} images are 1 batch of 8" in capsys.readouterr().err
    assert not (tmp_path / "run" / "history.csv").exists()


@pytest.mark.slow
def test_an_interrupted_run_goes_on_where_validation_counts_over_epochs(
    fit: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stop = "import os\nimport lightning as L\nclass Stop(L.Callback):\n    def on_train_batch_end(self, trainer, *_):\n"
    stop += "        if str(trainer.global_step) == os.environ.get('STOP'):\n            raise KeyboardInterrupt\n"
    (tmp_path / "stopping.py").write_text(stop)
    monkeypatch.syspath_prepend(tmp_path)
    flags = ["--trainer.val_check_interval", 4, "--trainer.check_val_every_n_epoch", "null", "--ema_decay", 0.9]
    flags += ["--trainer.callbacks+", "stopping.Stop"]
    straight = fit(*flags, name="straight")
    assert [row["step"] for row in validated(straight)] == [4, 8, 12, 16, 20, 24]
    check_best(straight)
    monkeypatch.setenv("STOP", "15")
    with pytest.raises(SystemExit, match="130"):
        fit(*flags, name="stopped")
    monkeypatch.delenv("STOP")
    stopped = fit(*flags, name="stopped")
    rows = [[{**row, "seconds": 0.0} for row in run.read_history()] for run in (straight, stopped)]
    assert str(rows[0]) == str(rows[1])
    assert straight.predictions.read_bytes() == stopped.predictions.read_bytes()


def test_a_fast_dev_run_writes_nothing(
    fit: Callable[..., RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = fit("--trainer.fast_dev_run", 2, "--ema_decay", 0.9, "--monitor", "val/loss_calibrated")
    assert "2 batches each of training, validation and test went through" in capsys.readouterr().err
    assert not run.path.exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_overfitting_sees_the_same_batches_in_the_same_order(fit: Callable[..., RunFolder]) -> None:
    run = fit(
        "--trainer.overfit_batches", 2, "--model.optimizer.lr", 0, "--model.dropout", 0, "--trainer.max_epochs", 3
    )
    history = run.read_history()
    assert [row["step"] for row in history] == [2, 4, 6]
    assert len({row["train/loss"] for row in history}) == 1


@pytest.mark.slow
def test_gradients_are_gathered_and_clipped(fit: Callable[..., RunFolder]) -> None:
    whole = ["--trainer.max_epochs", 1, "--model.dropout", 0]
    run = fit(*whole, "--trainer.accumulate_grad_batches", 3, name="gathered")
    assert [row["step"] for row in run.read_history()] == [2]
    free, clipped = (fit(*whole, *flags, name=f"{len(flags)}") for flags in ([], ["--trainer.gradient_clip_val", 1e-9]))
    assert free.read_history()[0]["step"] == clipped.read_history()[0]["step"] == 6
    assert free.read_history()[0]["val/loss"] != clipped.read_history()[0]["val/loss"]


@pytest.mark.slow
def test_training_may_end_within_an_epoch(fit: Callable[..., RunFolder]) -> None:
    run = fit("--trainer.max_steps", 8)
    assert [(row["step"], math.isfinite(row["val/loss"])) for row in run.read_history()] == [(6, True), (8, False)]
    check_best(run)


@pytest.mark.slow
def test_what_others_write_goes_below_the_default_root(fit: Callable[..., RunFolder], tmp_path: Path) -> None:
    every = {"class_path": "ModelCheckpoint", "init_args": {"filename": "each-{epoch}", "save_top_k": -1}}
    file = tmp_path / "callbacks.yaml"
    file.write_text(yaml.safe_dump({"trainer": {"callbacks": [every]}}))
    run = fit("--config", file, "--trainer.default_root_dir", tmp_path / "root", "--trainer.logger", "false")
    assert {path.name for path in (tmp_path / "root").rglob("*.ckpt")} == {
        f"each-epoch={epoch}.ckpt" for epoch in range(4)
    }
    assert {path.name for path in run.checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}


@pytest.mark.slow
def test_a_plugin_of_ones_own_writes_the_checkpoints(fit: Callable[..., RunFolder]) -> None:
    run = fit("--trainer.plugins", "lightning.pytorch.plugins.io.AsyncCheckpointIO", "--trainer.max_epochs", 2)
    assert run.finished
    check_best(run)
