import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder

TINY = "model:\n  class_path: BenchmarkCNN\n  init_args: {filters: [4, 8], block_dropout: [0, 0]}\n"
HEAD = "model:\n  class_path: FeatureHead\n  init_args: {backbone: test_resnet, weights: none}\ndata: {views: 1}\n"
FLAGS = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--data.image_size", "32"]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "tiny.yaml").write_text(TINY)
    (folder / "head.yaml").write_text(HEAD)
    (folder / "tuned.yaml").write_text(HEAD.replace("FeatureHead", "FineTuned"))
    return folder


@pytest.fixture
def command(images: Path, recipes: Path, tmp_path: Path) -> Callable[..., list[str]]:
    def words(*names: str, run_dir: Path = tmp_path / "out") -> list[str]:
        files = [str(recipes / f"{name}.yaml") for name in names]
        return ["compare", "--data.root", str(images), "--run_dir", str(run_dir), "--models", *files, *FLAGS]

    return words


def read(run_dir: Path, name: str) -> tuple[object, str]:
    run = RunFolder(run_dir / name)
    return run.read_metrics()["test"], run.predictions.read_text()


LOCAL = ["--launcher", "local", "--parallel", "2"]


@pytest.mark.slow
def test_trainings_side_by_side_are_those_of_the_plain_command(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kth_lightning.cli.launch._STATUS_SECONDS", 0.5)
    main([*command("tiny"), "--folds", "2", *LOCAL])
    launched = capsys.readouterr()
    assert "\n0 done, 2 at work, 0 waiting\n" in launched.err
    for name in ("fold-0/tiny", "fold-1/tiny"):
        said = re.findall(rf"(?m)^  {name}: (.*)$", launched.err)
        assert any(line.startswith("BenchmarkCNN: ") for line in said)
        assert set(said) <= set((tmp_path / f"out/logs/{name}.log").read_text().splitlines())
    lines = [line for line in launched.err.splitlines() if line.startswith("fold-")]
    assert [line.split(": ")[1].split(";")[0] for line in lines[:2]] == ["started on the CPU"] * 2
    assert sum("test images right" in line for line in lines) == 2
    assert (tmp_path / "out/logs/fold-0/tiny.log").exists()
    main([*command("tiny", run_dir=tmp_path / "plain"), "--folds", "2"])
    for name in ("fold-0/tiny", "fold-1/tiny"):
        assert read(tmp_path / "out", name) == read(tmp_path / "plain", name)
    assert launched.out.splitlines()[:4] == (tmp_path / "out/table.md").read_text().splitlines()[:4]


@pytest.mark.slow
def test_a_training_that_fails_leaves_out_what_begins_from_it_alone_and_the_command_goes_on(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    args = [*command("tiny", "head", "tuned"), *LOCAL]
    blocked = tmp_path / "out" / "head" / "checkpoints"
    blocked.parent.mkdir(parents=True)
    blocked.touch()  # a file where a folder has to be
    said = refused(args, capsys)
    assert "2 of 3 trainings failed or were left out" in said[-1]
    (failed,) = (line for line in said if line.startswith("warning: head failed: "))
    assert "checkpoints" in failed
    assert failed.endswith(f"({tmp_path / 'out/logs/head.log'})")
    assert "warning: tuned is left out: it begins from head, which failed" in said
    done = RunFolder(tmp_path / "out/tiny").metrics.stat().st_mtime_ns
    assert not (tmp_path / "out/table.md").exists()

    blocked.unlink()
    main(args)
    assert RunFolder(tmp_path / "out/tiny").metrics.stat().st_mtime_ns == done
    assert [line.split("|")[1].strip() for line in (tmp_path / "out/table.md").read_text().splitlines()[2:5]] == [
        "head", "tiny", "tuned"
    ]  # fmt: skip


def refused(args: list[str], capsys: pytest.CaptureFixture) -> list[str]:
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        main(args)
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--parallel", "2"], "--parallel goes with --launcher local or --launcher slurm; give one"),
        (["--launcher", "local", "--slurm", "time=5"], "--slurm goes with --launcher slurm; leave it out"),
        (["--launcher", "local", "--parallel", "0"], "--parallel 0: give at least 1"),
        (["--launcher", "local", "--trainer.devices", "2"], "trains every model on one device; leave out --trainer.de"),
    ],
)
def test_flags_that_do_not_go_together_get_one_sentence(
    flags: list[str], sentence: str, command: Callable[..., list[str]], refusal: Callable[..., str], tmp_path: Path
) -> None:
    assert sentence in refusal(*command("tiny"), *flags)
    assert not (tmp_path / "out").exists()


def test_without_the_package_one_sentence_says_how_to_install_it(
    command: Callable[..., list[str]], refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kth_lightning.cli.launch.find_spec", lambda name: None)
    assert "run uv pip install '.[launcher]' in the clone" in refusal(*command("tiny"), *LOCAL)


@pytest.mark.slow
def test_ctrl_c_ends_what_was_started(command: Callable[..., list[str]], tmp_path: Path) -> None:
    args = [*command("tiny"), "--seeds", "2", *LOCAL, "--trainer.max_epochs", "100000"]
    process = subprocess.Popen([sys.executable, "-m", "kth_lightning", *args], stderr=subprocess.PIPE, text=True)
    histories = [RunFolder(tmp_path / f"out/seed-{seed}/tiny").history for seed in range(2)]
    deadline = time.monotonic() + 240
    while not all(file.exists() for file in histories):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "stopped: seed-0/tiny, seed-1/tiny" in said
    assert said.rstrip().endswith("error: interrupted; repeat the command, which resumes where it can")
    assert "Traceback" not in said
    sizes = [file.stat().st_size for file in histories]
    time.sleep(2)
    assert [file.stat().st_size for file in histories] == sizes


SBATCH = """#!/bin/bash
# submitit's script, at once and on this machine
grep '^#SBATCH' "$1" >> {record}
( SLURM_JOB_ID=$BASHPID; export SLURM_JOB_ID; echo "$SLURM_JOB_ID" > {record}.id; exec bash "$1" ) > /dev/null 2>&1 &
sleep 0.2
echo "Submitted batch job $(cat {record}.id)"
"""
SRUN = """#!/bin/bash
out=${3//%j/$SLURM_JOB_ID}; err=${5//%j/$SLURM_JOB_ID}
shift 5
exec "$@" > "${out//%t/0}" 2> "${err//%t/0}"
"""


@pytest.fixture
def played_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put programs with the names of SLURM's on the path, which do on this machine what submitit asks for."""
    record, programs = tmp_path / "sbatch.txt", tmp_path / "bin"
    programs.mkdir()
    for name, text in {
        "sbatch": SBATCH.replace("{record}", str(record)),
        "srun": SRUN,
        "sacct": "#!/bin/bash\n",
    }.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return record


@pytest.mark.slow
def test_slurm_gets_a_job_of_each_training_with_what_was_asked_for(
    command: Callable[..., list[str]], played_slurm: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    main([*command("tiny"), "--launcher", "slurm", "--slurm", "partition=gpu", "time=30", "gpus_per_node=1"])
    asked = played_slurm.read_text()
    for words in ("partition=gpu", "time=30", "gpus-per-node=1", "dependency=singleton", "cpus-per-task=4"):
        assert f"#SBATCH --{words}\n" in asked
    assert "queued as job" in capsys.readouterr().err
    assert RunFolder(tmp_path / "out/tiny").finished
    assert "tiny" in (tmp_path / "out/table.md").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["partition"], "--slurm partition: give KEY=VALUE"),
        (["time=1:00:00"], "--slurm time=1:00:00: give minutes"),
        (["partitoin=gpu"], "a name is not one of submitit's"),
    ],
)
def test_words_for_slurm_that_cannot_be_used_get_one_sentence(
    words: list[str],
    sentence: str,
    command: Callable[..., list[str]],
    played_slurm: Path,
    refusal: Callable[..., str],
) -> None:
    assert sentence in refusal(*command("tiny"), "--launcher", "slurm", "--slurm", *words)


def test_where_there_is_no_slurm_one_sentence_says_so(
    command: Callable[..., list[str]], refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert "there is no srun here" in refusal(*command("tiny"), "--launcher", "slurm")
