import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder

COUNTS = {"cat": 60, "cow": 12, "dog": 9}
FLAGS = ["--model", "BenchmarkCNN", "--model.filters", "[8,16]", "--model.block_dropout", "[0,0]"]
FLAGS += ["--data.image_size", "32", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu"]


def fit(root: Path, run_dir: Path) -> list[str]:
    return ["fit", *FLAGS, "--data.balance", "inverse", "--data.root", str(root), "--run_dir", str(run_dir)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunFolder]:
    """Train for a moment on classes of which the largest has more than five times the images of the smallest."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("uneven") / "animals"
    for number, (label, count) in enumerate(COUNTS.items()):
        (root / label).mkdir(parents=True)
        for image in range(count):
            pixels = (rng.random((40, 40, 3)) * 130 + np.eye(3)[number] * 120).astype(np.uint8)
            Image.fromarray(pixels).save(root / label / f"{image:03d}.png")
    run = RunFolder(tmp_path_factory.mktemp("runs") / "run")
    main(fit(root, run.path))
    return root, run


@pytest.mark.slow
def test_macro_recall_and_the_classes_lead(trained: tuple[Path, RunFolder], capsys: pytest.CaptureFixture) -> None:
    root, run = trained
    new = run.path.parent / "new"
    main(["test", "--ckpt_path", str(run.best_checkpoint), "--data.root", str(root), "--run_dir", str(new)])
    first, second = [line for line in capsys.readouterr().out.splitlines() if re.match("macro recall|accuracy", line)]
    interval = r"( \(95 % interval [\d.]+ to [\d.]+ %\))?"
    counted = r"9 \(dog\) to 60 \(cat\) images a class"
    assert re.fullmatch(rf"macro recall: [\d.]+ %{interval}; the classes are uneven: {counted}", first)
    assert second.startswith("accuracy: ")
    assert "of each class" in run.report.read_text(encoding="utf-8")


def test_metrics_have_the_figures_of_every_class(trained: tuple[Path, RunFolder]) -> None:
    _, run = trained
    figures, predictions = run.read_metrics()["test"], run.read_predictions()
    named = predictions.probabilities.argmax(axis=1)
    assert [row["class"] for row in figures["classes"]] == list(COUNTS)
    for number, row in enumerate(figures["classes"]):
        own = predictions.labels == number
        assert row["n"] == own.sum()
        assert row["recall"]["value"] == pytest.approx((named[own] == number).mean())
        assert row["recall"]["low"] < row["recall"]["high"]


@pytest.mark.slow
def test_a_run_of_a_version_that_knew_true_and_false_is_the_same_run(
    trained: tuple[Path, RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root, run = trained
    old = RunFolder(tmp_path / "old")
    shutil.copytree(run.path, old.path)
    text = old.config.read_text(encoding="utf-8")
    assert "\n  balance: inverse\n  balance_beta: null\n" in text
    text = text.replace("  balance: inverse\n  balance_beta: null\n", "  balance: true\n")
    old.config.write_text(text, encoding="utf-8")
    metrics = json.loads(old.metrics.read_text(encoding="utf-8"))
    main(fit(root, old.path))
    assert "is finished" in capsys.readouterr().err
    main(["test", "--ckpt_path", str(old.best_checkpoint), "--run_dir", str(tmp_path / "test")])
    assert RunFolder(tmp_path / "test").read_metrics()["test"]["acc"] == metrics["test"]["acc"]


@pytest.mark.parametrize("choice", ["focal", "[1,2]"])
def test_an_unknown_choice_is_one_sentence(choice: str, tmp_path: Path, refusal: pytest.FixtureRequest) -> None:
    line = refusal("fit", *FLAGS, "--data.balance", choice, "--run_dir", tmp_path / "run")
    assert "balance" in line
    assert "effective" in line
    assert not (tmp_path / "run").exists()
