"""Several machines, played by launches of their own on this one."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kth_lightning.results.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
LOST = "another process of this run has ended or cannot be reached"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the launchers are for a POSIX shell"),
]

Launch = Callable[..., list[subprocess.Popen[str]]]


@pytest.fixture
def launch(pictures: Path, tmp_path: Path) -> Iterator[Launch]:
    started: list[subprocess.Popen[str]] = []

    def start(epochs: int) -> list[subprocess.Popen[str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = ["--config", str(ROOT / "configs/sample/benchmark.yaml"), "--trainer.max_epochs", str(epochs)]
        words += ["--data.root", str(pictures), "--data.image_size", "32", "--trainer.accelerator", "cpu"]
        words += ["--model.init_args.filters", "[8,8,8,8,8]", "--run_dir", str(tmp_path / "run")]
        for node in range(2):
            place = {"NODES": "2", "NODE": str(node), "HEAD": "127.0.0.1", "PORT": str(port), "PYTHON": sys.executable}
            started.append(
                subprocess.Popen(
                    ["bash", str(ROOT / "scripts/torchrun.sh"), *words],
                    env=os.environ | place | {"OMP_NUM_THREADS": "1"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    start_new_session=True,
                )
            )
        return started[-2:]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_machine_that_is_lost_ends_the_others_with_a_sentence_and_the_run_goes_on(
    launch: Launch, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    first, second = launch(epochs=300)
    started = time.monotonic()
    while not run.last_checkpoint.exists():
        assert time.monotonic() - started < 120
        time.sleep(0.1)
    workers = subprocess.run(["pgrep", "-P", str(second.pid)], capture_output=True, text=True, check=True).stdout
    for process in (second.pid, *map(int, workers.split())):
        os.kill(process, signal.SIGKILL)
    said, _ = first.communicate(timeout=120)
    assert first.returncode != 0
    assert said.count(LOST) == 1
    assert "kth_lightning/training" not in said  # no traceback of ours
    reached = len(run.read_history())

    answers = []
    for process in launch(epochs=300):
        answers.append(process.communicate(timeout=300)[0])
        assert process.returncode == 0, answers[-1]
    assert [answer.count("going on with the run") for answer in answers] == [1, 0]
    history = run.read_history()
    assert [row["epoch"] for row in history] == list(range(len(history)))
    assert len(history) >= reached
    predictions = run.read_predictions()
    assert len(set(predictions.paths)) == len(predictions.paths) == run.read_metrics()["test"]["n"]
