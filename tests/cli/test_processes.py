"""Two processes of the real command on one machine's CPU, against one."""

import csv
import math
import os
import socket
import subprocess
import sys
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CPU = ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true"]
ONE = [*CPU, "--trainer.devices", "1", "--trainer.strategy", "auto"]
TWO = [*CPU, "--trainer.devices", "2", "--trainer.strategy", "ddp"]
FIGURES = ("loss", "acc", "kappa", "recall")
VIEWS = 6

# Python reads it when it starts, in every process of a command: it writes down what is put in its place by a new name.
WITNESS = """
import os, sys
_seen = os.open({file!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def _hook(event, args):
    if event == "os.rename":
        os.write(_seen, f"{os.getpid()}\\t{os.fsdecode(args[1])}\\n".encode())
sys.addaudithook(_hook)
"""

# The second process comes to the features when the first has written some.
LATE = """
import os, sys, time
def _hook(event, args):
    if event == "os.mkdir" and "/features/" in os.fsdecode(args[0]) and os.environ.get("LOCAL_RANK") == "1":
        time.sleep(5)
sys.addaudithook(_hook)
"""

Trained = tuple[RunFolder, RunFolder]


def on_two(args: list[str], witness: Path | None = None, started: str = WITNESS) -> str:
    """Carry a command out as people do, and return what it prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if witness is not None:
        folder = witness.parent / "witness"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(started.replace("{file!r}", repr(str(witness))))
        environment["PYTHONPATH"] = str(folder)
    command = [sys.executable, "-m", "kth_lightning", *args, *TWO]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False, env=environment
    )
    assert result.returncode == 0, result.stderr
    assert "warning" not in result.stderr.lower(), result.stderr
    assert "goes on without" not in result.stderr, result.stderr
    return result.stdout


def few(whole: Path, file: Path) -> Path:
    """Make a run's splits.csv one that validates on an image of each of the 3 classes and tests on one image."""
    with whole.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    for row in rows:
        row[3] = "val" if row[0].endswith("000.png") else "test" if row[0] == "class1/001.png" else "train"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return file


def train_twice(folder: Path, args: list[str]) -> Trained:
    one, two = RunFolder(folder / "one"), RunFolder(folder / "two")
    caches = [["--data.cache_dir", str(folder / f"{name}-cache")] for name in ("one", "two")]
    main(["fit", *args, *caches[0], "--run_dir", str(one.path), *ONE])
    on_two(["fit", *args, *caches[1], "--run_dir", str(two.path)], witness=folder / "renamed.tsv")
    return one, two


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Trained:
    """Train a head from empty caches: 48 images in batches of 47 and 1, and 7 and 5 to judge by."""
    args = ["--model", "FeatureHead", "--model.backbone", "resnet18", "--model.weights", "none", "--model.dropout", "0"]
    args += ["--model.lr_scheduler", "Cosine", "--model.lr_scheduler.warmup", "0.3", "--data.root", str(images)]
    args += ["--data.image_size", "64", "--data.augmentation", "standard", "--data.views", str(VIEWS)]
    args += ["--data.tta_flip", "true", "--data.balance", "inverse", "--trainer.max_epochs", "3"]
    args += ["--data.batch_size", "47", "--data.val_size", "7", "--data.test_size", "5"]
    args += ["--monitor", "val/loss_calibrated"]
    return train_twice(tmp_path_factory.mktemp("heads"), args)


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory: pytest.TempPathFactory, images: Path, heads: Trained) -> Trained:
    """Fine-tune on a batch of balanced samples in ever new views, with three images to validate and one to test."""
    folder = tmp_path_factory.mktemp("finetuned")
    args = ["--model", "FineTuned", "--model.backbone", "test_convnext", "--model.weights", "none"]
    args += [
        "--model.dropout",
        "0",
        "--model.optimizer.lr",
        "0.01",
        "--data.root",
        str(images),
        "--data.image_size",
        "64",
    ]
    args += ["--data.augmentation", "standard", "--data.batch_size", "100", "--trainer.max_epochs", "3"]
    args += ["--ema_decay", "0.5", "--data.balance", "sampling"]
    args += ["--data.splits", str(few(heads[0].splits, folder / "splits.csv"))]
    return train_twice(folder, args)


@pytest.fixture(params=["heads", "fine_tuned"])
def trained(request: pytest.FixtureRequest) -> Trained:
    return request.getfixturevalue(request.param)


def numbers(run: RunFolder) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.read_history()]


def figures_of(part: dict[str, Any], stage: str) -> dict[str, float]:
    values = {name: part[name]["value"] if stage == "test" else part[name] for name in FIGURES}
    return {name: math.nan if value is None else value for name, value in values.items()}


def same(found: Any, expected: Any) -> bool:
    return found == pytest.approx(expected, abs=1e-6, rel=1e-6, nan_ok=True)


def test_training_follows_the_single_process_to_rounding(trained: Trained) -> None:
    one, two = trained
    assert len(numbers(one)) == 3
    for ours, theirs in zip(numbers(two), numbers(one), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    ours, theirs = (torch.load(run.best_checkpoint, weights_only=True)["state_dict"] for run in (two, one))
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, atol=2e-5, rtol=1e-4, msg=key)


def test_predictions_are_complete_once_each_and_in_order(trained: Trained) -> None:
    one, two = (run.read_predictions() for run in trained)
    assert two.paths == one.paths == sorted(set(one.paths))
    assert two.labels.tolist() == one.labels.tolist()
    np.testing.assert_allclose(two.probabilities, one.probabilities, atol=1e-5)


def test_steps_and_learning_rates_are_those_of_one_process(heads: Trained, fine_tuned: Trained) -> None:
    for runs, steps in ((heads, 2), (fine_tuned, 1)):
        for run in runs:
            assert torch.load(run.last_checkpoint, weights_only=True)["global_step"] == 3 * steps
    one, two = ([row["lr"] for row in run.read_history()] for run in heads)
    assert two == one
    assert len(set(one)) == 3


def test_stores_are_built_once_by_both_processes_together(heads: Trained, images: Path) -> None:
    one, two = (run.path.parent / f"{run.path.name}-cache" for run in heads)
    stored = [{str(file.relative_to(cache)) for file in cache.glob("*/*/*.safetensors")} for cache in (one, two)]
    assert stored[0] == stored[1]
    rows: Counter[tuple[int, int]] = Counter()
    for file in two.glob("features/*/*.safetensors"):
        with safe_open(file, "pt") as opened:
            keys = zip(opened.get_tensor("image").tolist(), opened.get_tensor("view").tolist(), strict=True)
            rows.update(keys)
    assert set(rows.values()) == {1}
    assert len(rows) == 48 * VIEWS + (7 + 5) * 2
    lines = [line.split("\t") for line in (two.parent / "renamed.tsv").read_text().splitlines()]
    written = Counter(path for _, path in lines if path.startswith(str(two)))
    assert set(written.values()) == {1}
    assert {Path(path).relative_to(two).parts[0] for path in written} == {"catalogues", "pixels", "features"}
    assert len({process for process, path in lines if path.endswith(".safetensors")}) == 2
    assert not [path for path in two.rglob("*") if path.suffix == ".part"]


def test_a_process_that_opens_the_store_late_leaves_no_row_out(images: Path, tmp_path: Path) -> None:
    args = ["--model", "FeatureHead", "--model.backbone", "test_resnet", "--model.weights", "none"]
    args += ["--data.root", str(images), "--data.image_size", "64", "--data.augmentation", "standard"]
    args += ["--data.views", "12", "--trainer.max_epochs", "1", "--data.cache_dir", str(tmp_path / "cache")]
    on_two(["fit", *args, "--run_dir", str(tmp_path / "run")], witness=tmp_path / "renamed.tsv", started=LATE)
    assert RunFolder(tmp_path / "run").read_metrics()["test"]["n"]


def test_the_run_folder_is_written_once_by_one_process(trained: Trained) -> None:
    one, two = ({str(path.relative_to(run.path)) for path in run.path.rglob("*")} for run in trained)
    events = {path for path in one | two if "tfevents" in path}
    assert two - events == one - events
    assert len(two & events) == 1
    run = trained[1]
    lines = [line.split("\t") for line in (run.path.parent / "renamed.tsv").read_text().splitlines()]
    written = [(process, Path(path).name) for process, path in lines if Path(path).is_relative_to(run.path)]
    assert len({process for process, _ in written}) == 1
    assert Counter(name for _, name in written if name in ("config.yaml", "metrics.json", "report.html")) == {
        **{"config.yaml": 1, "metrics.json": 1, "report.html": 1}
    }


def test_one_process_finds_the_figures_that_two_wrote(trained: Trained) -> None:
    run = trained[1]
    metrics = run.read_metrics()
    assert metrics["device"].startswith("2 x")
    for command, stage in (("validate", "val"), ("test", "test")):
        assert same(evaluate(command, run), figures_of(metrics[stage], stage))


def evaluate(command: str, run: RunFolder, *flags: str) -> dict[str, float]:
    args = evaluation(command, run)
    main([*args, *ONE, *flags])
    return evaluated(args)


def evaluation(command: str, run: RunFolder) -> list[str]:
    folder = next(path for number in count() if not (path := run.path.parent / f"evaluation-{number}").exists())
    return [command, "--config", str(run.config), "--ckpt_path", str(run.best_checkpoint), "--run_dir", str(folder)]


def evaluated(args: list[str]) -> dict[str, float]:
    return figures_of(RunFolder(Path(args[-1])).read_metrics()["test"], "test")


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("test", ["--data.batch_size", "2"]),
        ("validate", ["--data.batch_size", "1", "--trainer.limit_val_batches", "1"]),
    ],
    ids=["5 in batches of 2", "1 image"],
)
def test_a_checkpoint_has_the_same_figures_on_two_processes(command: str, flags: list[str], heads: Trained) -> None:
    alone, args = evaluate(command, heads[0], *flags), evaluation(command, heads[0])
    on_two([*args, *flags])
    assert same(evaluated(args), alone)


def test_compare_has_the_figures_of_one_process(images: Path, tmp_path: Path) -> None:
    flags = ["--data.root", str(images), "--data.image_size", "32", "--data.views", "1", "--trainer.max_epochs", "2"]
    out = on_two(["compare", *flags, "--models", "head", "--run_dir", str(tmp_path)])
    assert (tmp_path / "table.md").read_text().strip() in out
    run = RunFolder(tmp_path / "head")
    metrics = run.read_metrics()
    assert metrics["device"].startswith("2 x")
    assert same(evaluate("test", run), figures_of(metrics["test"], "test"))


def test_a_batch_of_one_image_a_process_is_trained_on_under_batch_normalisation(images: Path, tmp_path: Path) -> None:
    args = ["--model", "FineTuned", "--model.backbone", "test_resnet", "--model.weights", "none"]
    args += ["--data.root", str(images), "--data.image_size", "32", "--data.batch_size", "2"]
    on_two(["fit", *args, "--trainer.max_epochs", "1", "--run_dir", str(tmp_path)])
    assert RunFolder(tmp_path).read_metrics()["device"].startswith("2 x")


def test_a_port_that_is_taken_is_named_and_no_process_stays_behind(images: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
        environment["MASTER_PORT"] = str(taken.getsockname()[1])
        argv = ["fit", "--config", "configs/sample/benchmark.yaml", "--data.root", str(images), *TWO]
        command = [sys.executable, "-m", "kth_lightning", *argv, "--run_dir", str(tmp_path / "run")]
        # It would not return as long as another process holds its output open.
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=environment)
    assert result.returncode == 2
    assert "error: the port at which the processes of this run meet is taken" in result.stderr
    assert "Traceback" not in result.stderr
