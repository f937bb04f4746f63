"""Two processes of the real command, one of which ends or fails."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kth_lightning.io.run_folder import RunFolder

pytestmark = pytest.mark.slow

TINY = ["--model", "BenchmarkCNN", "--model.filters", "[4,8]", "--model.block_dropout", "[0,0]"]
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]

UNUSED = """
import torch
from kth_lightning import Classifier

class Net(Classifier):
    def __init__(self, num_classes: int, **kwargs) -> None:
        super().__init__(num_classes, **kwargs)
        self.dense = torch.nn.Linear(3, num_classes)
        self.forgotten = torch.nn.Linear(4, 4)

    def tail(self, features):
        return self.dense(features.mean((2, 3)))
"""


def start(images: Path, run: RunFolder, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kth_lightning", "fit", "--data.root", str(images), "--data.image_size", "32"]
    command += ["--trainer.accelerator", "cpu", "--run_dir", str(run.path), *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=run.path.parent, env=environment, stderr=subprocess.PIPE, text=True)


def test_the_systems_request_to_end_ends_all_processes_and_the_run_goes_on(images: Path, tmp_path: Path) -> None:
    run, flags = RunFolder(tmp_path / "run"), [*TWO, *TINY, "--trainer.max_epochs", "60", "--patience", "60"]
    process = start(images, run, *flags)
    deadline = time.monotonic() + 120
    while not run.last_checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)  # which also waits for the other process, who may write there too
    assert process.returncode == 130, said
    assert "interrupted; repeat the command" in said
    reached = len(run.read_history())
    again = start(images, run, *flags)
    _, said = again.communicate(timeout=200)
    assert again.returncode == 0, said
    assert 0 < reached < len(run.read_history()) == 60


def test_the_systems_request_is_heard_while_features_are_computed(images: Path, tmp_path: Path) -> None:
    run, cache = RunFolder(tmp_path / "run"), tmp_path / "cache"
    flags = ["--model", "FeatureHead", "--model.weights", "none", "--trainer.precision", "32"]
    process = start(images, run, *flags, "--data.image_size", "448", "--data.cache_dir", str(cache))
    deadline = time.monotonic() + 120
    while not list(cache.glob("features/*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "interrupted; repeat the command" in said
    assert not run.history.exists()  # no batch of training was waited for


def test_parameters_that_a_step_does_not_use_are_named_in_a_sentence(images: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(UNUSED)
    run = RunFolder(tmp_path / "run")
    process = start(images, run, *TWO, "--model", "mine.Net", "--trainer.max_epochs", "2", "--data.batch_size", "8")
    _, said = process.communicate(timeout=200)
    assert process.returncode == 2, said
    assert "give --trainer.strategy ddp_find_unused_parameters_true" in said
    assert "Traceback" not in said
