"""Several machines, played by launches of their own on this one."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kth_lightning.io.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
SLURM = Path("/etc/slurm/slurm.conf")
LOST = "another process of this run has ended or cannot be reached"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the launchers are for a POSIX shell"),
]

Launch = Callable[..., list[subprocess.Popen[str]]]


def _words(images: Path, run: RunFolder, epochs: int) -> list[str]:
    return [
        *("--config", str(ROOT / "configs/sample/benchmark.yaml"), "--trainer.max_epochs", str(epochs)),
        *("--data.root", str(images), "--data.image_size", "32", "--trainer.accelerator", "cpu"),
        *("--model.init_args.filters", "[8,8,8,8,8]", "--run_dir", str(run.path)),
    ]


def _wait_for(condition: Callable[[], bool], seconds: int = 120) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds
        time.sleep(0.1)


def _check_whole(run: RunFolder, reached: int) -> None:
    history = run.read_history()
    assert [row["epoch"] for row in history] == list(range(len(history)))
    assert len(history) >= reached
    predictions = run.read_predictions()
    assert len(set(predictions.paths)) == len(predictions.paths) == run.read_metrics()["test"]["n"]


@dataclass(frozen=True)
class Machine:
    """Where a launch runs: a network namespace of its own, or this machine."""

    address: str
    inside: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)


def _ip(*argv: str) -> bool:
    return shutil.which("ip") is not None and subprocess.run(["ip", *argv], capture_output=True).returncode == 0


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    """Join two network namespaces by a cable where the system lets us, else take this machine's loopback twice."""
    names = [f"kth-{os.getpid()}-{end}" for end in "ab"]
    ends = list(zip(names, ("end0", "end1"), ("10.77.0.1", "10.77.0.2"), strict=True))
    joined = all(_ip("netns", "add", name) for name in names) and _ip(
        *("link", "add", "end0", "netns", names[0], "type", "veth", "peer", "name", "end1", "netns", names[1])
    )
    for name, device, address in ends:
        joined = joined and _ip("-n", name, "addr", "add", f"{address}/24", "dev", device)
        joined = joined and all(_ip("-n", name, "link", "set", item, "up") for item in ("lo", device))
    inside = [
        Machine(address, ("ip", "netns", "exec", name), {"GLOO_SOCKET_IFNAME": device})
        for name, device, address in ends
    ]
    yield inside if joined else [Machine("127.0.0.1"), Machine("127.0.0.1")]
    for name in names:
        _ip("netns", "del", name)


@pytest.fixture
def launch(images: Path, tmp_path: Path, machines: list[Machine]) -> Iterator[Launch]:
    started: list[subprocess.Popen[str]] = []

    def start(epochs: int) -> list[subprocess.Popen[str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for node, machine in enumerate(machines):
            position = {"NODES": "2", "NODE": str(node), "HEAD": machines[0].address, "PORT": str(port)}
            position |= machine.settings | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
            argv = _words(images, RunFolder(tmp_path / "run"), epochs)
            started.append(
                subprocess.Popen(
                    [*machine.inside, "bash", str(ROOT / "scripts/torchrun.sh"), *argv],
                    env=os.environ | position,
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
    _wait_for(run.last_checkpoint.exists)
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
    _check_whole(run, reached)


def _ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _state(job: str) -> str:
    return _ask("scontrol", "-o", "show", "job", job).split("JobState=")[1].split()[0]


@pytest.mark.skipif(
    # On another SLURM the jobs would be somebody's, and its nodes would not see this machine's files.
    not SLURM.exists() or "ClusterName=two\n" not in SLURM.read_text(),
    reason="scripts/slurm_of_two.sh was not started",
)
def test_a_slurm_job_ends_when_it_loses_a_process_and_goes_on_when_queued_again(images: Path, tmp_path: Path) -> None:
    run, said = RunFolder(tmp_path / "run"), tmp_path / "said"

    def submit() -> str:
        return _ask(
            *("sbatch", "--parsable", "--nodes", "2", "--ntasks-per-node", "1", "--cpus-per-task", "1"),
            *("--export", f"ALL,PYTHON={sys.executable},OMP_NUM_THREADS=1", "--output", str(said)),
            *(str(ROOT / "scripts/slurm.sh"), *_words(images, run, epochs=300)),
        )

    job = submit()
    _wait_for(run.last_checkpoint.exists)
    for process in map(int, _ask("pgrep", "-f", f"^{sys.executable} .*{run.path}").split()):
        if b"SLURM_PROCID=1\0" in Path(f"/proc/{process}/environ").read_bytes():
            os.kill(process, signal.SIGKILL)
    _wait_for(lambda: _state(job) == "FAILED")
    assert said.read_text().count(LOST) == 1
    assert "Traceback" not in said.read_text()
    reached = len(run.read_history())

    job = submit()
    _wait_for(lambda: len(run.read_history()) > reached)
    _ask("scancel", "--batch", "--signal", "USR1", job)  # as before the time limit
    _wait_for(lambda: _state(job) == "PENDING")
    reached = len(run.read_history())
    _ask("scontrol", "update", f"JobId={job}", "StartTime=now")
    _wait_for(lambda: _state(job) == "COMPLETED", seconds=300)
    assert said.read_text().count("going on with the run") == 2
    _check_whole(run, reached)
