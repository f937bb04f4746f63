import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_fit import EXACT, ROOT, fit, history, run_command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder

pytestmark = pytest.mark.slow

TINY = ["--model.backbone", "test_efficientnet", "--model.weights", "none"]


@pytest.mark.parametrize(
    "further",
    [[], ["--ema_decay", "0.9", "--data.balance", "sampling", "--data.val_size", "7"]],
    ids=["", "averaged, on balanced samples of uneven classes"],
)
def test_a_killed_run_goes_on_to_the_same_weights_and_figures(further: list[str], images: Path, tmp_path: Path) -> None:
    flags = [*EXACT, *TINY, *further, "--data.root", str(images), "--trainer.max_epochs", "20", "--data.views", "2"]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    main(fit("configs/finetune.yaml", straight, *flags))
    command = [sys.executable, "-m", "kth_lightning", *fit("configs/finetune.yaml", killed, *flags)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    while not (killed / "history.csv").exists() or len(history(killed)) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "metrics.json").exists()
    main(fit("configs/finetune.yaml", killed, *flags))
    assert history(killed) == history(straight)
    shown = EventAccumulator(str(killed)).Reload().Scalars("val/loss")
    assert [(event.step, pytest.approx(event.value)) for event in shown] == [
        (int(row["epoch"]), float(row["val/loss"])) for row in history(killed)
    ]
    assert (killed / "predictions.csv").read_text() == (straight / "predictions.csv").read_text()
    ours, theirs = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (killed, straight))
    for state in ("state_dict", *(["current_model_state"] if further else [])):
        assert all(torch.equal(ours[state][key], value) for key, value in theirs[state].items())


def test_a_run_killed_long_after_its_best_epoch_trains_none_of_its_epochs_again(images: Path, tmp_path: Path) -> None:
    args = fit("configs/head.yaml", tmp_path / "run", *EXACT, "--data.root", str(images))
    args += ["--model.optimizer.lr", "1.0", "--trainer.max_epochs", "12", "--patience", "8"]
    main(args)
    run = RunFolder(tmp_path / "run")
    rows = history(run.path)
    assert run.read_metrics()["best_epoch"] < len(rows) - 1
    assert torch.load(run.last_checkpoint, weights_only=True)["epoch"] == len(rows) - 1
    seconds = run.history.read_text()
    run.metrics.unlink()
    best = torch.load(run.best_checkpoint, weights_only=True)
    torch.save({key: value for key, value in best.items() if key != "complete"}, run.best_checkpoint)
    main(args)
    assert run.history.read_text() == seconds


def test_ctrl_c_leaves_a_run_that_goes_on(images: Path, tmp_path: Path) -> None:
    args = fit("configs/benchmark.yaml", tmp_path / "run", "--data.root", str(images))
    command = [sys.executable, "-m", "kth_lightning", *args]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # A suite in the background of a script has its interrupts turned off, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (tmp_path / "run/checkpoints/last.ckpt").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "repeat the command, which resumes where it can" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "run/metrics.json").exists()


def test_a_run_that_had_stopped_early_is_tested_and_not_trained_on(images: Path, tmp_path: Path) -> None:
    args = fit(
        "configs/head.yaml",
        tmp_path / "run",
        "--data.root",
        str(images),
        "--patience",
        "1",
        "--model.optimizer.lr",
        "1.0",
    )
    main(args)
    rows = history(tmp_path / "run")
    assert len(rows) < 100
    (tmp_path / "run/metrics.json").unlink()
    (tmp_path / "run/checkpoints/best.ckpt").unlink()
    last = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    torch.save(last, tmp_path / "run/checkpoints/best.ckpt")
    main(args)
    assert history(tmp_path / "run") == rows
    assert (tmp_path / "run/metrics.json").exists()


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="needs a file system of its own")
@pytest.mark.parametrize("room", ["3m", "200k"], ids=["of the checkpoint", "of the events"])
def test_a_full_disk_is_said_in_one_line_and_the_run_goes_on_when_there_is_room(
    images: Path, tmp_path: Path, room: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mount is not allowed here")
    try:
        args = fit("configs/benchmark.yaml", disk / "run", "--data.root", str(images), "--trainer.max_epochs", "2")
        result = run_command(args)
        assert result.returncode == 2
        assert "disk is full" in result.stderr.strip().splitlines()[-1]
        assert "Traceback" not in result.stderr
        subprocess.run(["mount", "-o", "remount,size=400m", str(disk)], check=True)
        assert run_command(args).returncode == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)
