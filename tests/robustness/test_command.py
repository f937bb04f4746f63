import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from corpus import snapshot

from kth_lightning.io.run_folder import RunFolder

Words = Callable[[Path, Path, RunFolder], list[object]]


def _with(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


def _pipe(file: Path) -> Path:
    os.mkfifo(file)
    return file


class Hostile:
    """Write into the working directory when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("ran",)


def _hostile(file: Path) -> Path:
    torch.save({"weights_sha256": "", "state_dict": Hostile()}, file)
    return file


CASES: dict[str, tuple[Words, str]] = {
    "no such command": (lambda root, folder, run: ["frobnicate"], "there is no command 'frobnicate'; the commands are"),
    "no such flag": (
        lambda root, folder, run: ["prepare", "--data.rot", root],
        "there is no setting --data.rot, on the command line or in a config file; did you mean --data.root?",
    ),
    "no such folder": (
        lambda root, folder, run: ["prepare", "--data.root", folder / "a\nb"],
        "--data.root: there is no folder {place}/a\\nb; check the path",
    ),
    "a class without an image": (
        lambda root, folder, run: ["prepare", "--data.root", (folder / "in/dog").mkdir(parents=True) or folder / "in"],
        "--data.root: {place}/in/dog is an empty class",
    ),
    "a broken archive": (
        lambda root, folder, run: ["prepare", "--data.archive", _with(folder / "a.tar.gz", b"\x1f\x8b" + bytes(500))],
        "--data.archive: {place}/a.tar.gz is damaged, incomplete or not a tar archive; download it again",
    ),
    "a configuration that is not valid YAML": (
        lambda root, folder, run: ["fit", "--config", _with(folder / "a.yaml", b"model: [\n")],
        "--config {place}/a.yaml is not valid YAML",
    ),
    "a hostile checkpoint": (
        lambda root, folder, run: [
            "predict", root, "--ckpt_path", _hostile(folder / "a.ckpt"), "--output", folder / "out.csv"
        ],
        "--ckpt_path: {place}/a.ckpt is not a checkpoint of kth_lightning, or is damaged; give another",
    ),
    "an output that cannot be written": (
        lambda root, folder, run: [
            "predict", root, "--ckpt_path", run.best_checkpoint, "--output", _with(folder / "file", b"") / "out.csv"
        ],
        "--output: cannot write {place}/file/out.csv (File exists); give another place",
    ),
}  # fmt: skip


def _environment(position: Path) -> dict[str, str]:
    return os.environ | {"KTH_LIGHTNING_CACHE": str(position / "cache")}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_command_answers_bad_input_in_one_line_and_changes_nothing(
    name: str, tiny_run: RunFolder, root: Path, tmp_path: Path
) -> None:
    argv, sentence = CASES[name]
    position = tmp_path / "place"
    position.mkdir()
    command = [sys.executable, "-m", "kth_lightning", *map(str, argv(root, position, tiny_run))]
    before = [snapshot(folder) for folder in (root, position, tiny_run.path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=position, check=False, env=_environment(tmp_path)
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {sentence.format(place=position)}")
    assert [snapshot(folder) for folder in (root, position, tiny_run.path)] == before
    assert not (position / "ran").exists()


@pytest.mark.slow
def test_the_command_leaves_bad_images_out_and_ends_well(root: Path, tmp_path: Path) -> None:
    (root / "cat/zeros.jpg").write_bytes(bytes(1000))
    _pipe(root / "dog/pipe.png")
    command = [sys.executable, "-m", "kth_lightning", "prepare", "--data.root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=_environment(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "6 of 8 files usable in 2 classes\n  unreadable: 2 (cat/zeros.jpg, dog/pipe.png)\n" in done.stdout


@pytest.mark.slow
def test_ctrl_c_ends_the_command_in_one_line_with_status_130(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kth_lightning", "prepare", "--data.sample_size", "100000"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(tmp_path),
        # Where the tests run in the background, the shell has Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        while not (tmp_path / "cache").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
    assert (process.returncode, printed) == (130, "")
    assert errors.splitlines()[-1] == "error: interrupted; repeat the command, which resumes where it can"
    assert "Traceback" not in errors
