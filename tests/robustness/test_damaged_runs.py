import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from corpus import snapshot, tiny_fit

from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder

Damage = Callable[[RunFolder], object]
BYTES = bytes(range(256))


@pytest.fixture
def run(tiny_run: RunFolder, tmp_path: Path) -> RunFolder:
    """Give a copy of a finished run, to be damaged."""
    return RunFolder(Path(shutil.copytree(tiny_run.path, tmp_path / "run")))


def unfinished(run: RunFolder) -> None:
    run.metrics.unlink()


def untrained(run: RunFolder) -> None:
    """Leave the run as a kill does in the last epoch."""
    run.metrics.unlink()
    best = torch.load(run.best_checkpoint, weights_only=True)
    torch.save({name: value for name, value in best.items() if name != "complete"}, run.best_checkpoint)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def without(file: Path, part: str) -> None:
    content = torch.load(file, weights_only=True)
    del content[part]
    torch.save(content, file)


IN_THE_WAY = "; give another --run_dir, or delete"
CASES: dict[str, tuple[Damage, str, str]] = {
    "best.ckpt cut": (lambda run: (unfinished(run), cut(run.best_checkpoint)), "best.ckpt is damaged", IN_THE_WAY),
    "best.ckpt gone": (lambda run: (unfinished(run), run.best_checkpoint.unlink()), "best.ckpt is gone", IN_THE_WAY),
    "last.ckpt cut": (lambda run: (untrained(run), cut(run.last_checkpoint)), "last.ckpt is damaged", IN_THE_WAY),
    "last.ckpt of zeros": (
        lambda run: (untrained(run), run.last_checkpoint.write_bytes(bytes(9000))),
        "last.ckpt is damaged",
        IN_THE_WAY,
    ),
    "last.ckpt of another program": (
        lambda run: (untrained(run), torch.save({"state_dict": {}}, run.last_checkpoint)),
        "last.ckpt is damaged",
        IN_THE_WAY,
    ),
    "last.ckpt without the optimizer": (
        lambda run: (untrained(run), without(run.last_checkpoint, "optimizer_states")),
        "last.ckpt is damaged",
        IN_THE_WAY,
    ),
    "config.yaml cut": (lambda run: run.config.write_text("model: ["), "config.yaml is damaged", IN_THE_WAY),
    "config.yaml empty": (lambda run: run.config.write_text(""), "config.yaml is damaged", IN_THE_WAY),
    "config.yaml a list": (lambda run: run.config.write_text("- 1"), "config.yaml is damaged", IN_THE_WAY),
    "config.yaml of bytes": (lambda run: run.config.write_bytes(BYTES), "config.yaml is damaged", IN_THE_WAY),
    "metrics.json of nothing": (lambda run: run.metrics.write_text("{}"), "metrics.json is damaged", "; delete it"),
    "metrics.json without a figure": (
        lambda run: run.metrics.write_text('{"test": {"acc": {"value": null}}}'),
        "metrics.json is damaged",
        "; delete it",
    ),
    "history.csv gone": (
        lambda run: (unfinished(run), run.history.unlink()),
        "history.csv is damaged",
        IN_THE_WAY,
    ),
    "history.csv of bytes": (
        lambda run: (unfinished(run), run.history.write_bytes(BYTES)),
        "history.csv is damaged",
        "; delete it",
    ),
    "history.csv of other columns": (
        lambda run: (unfinished(run), run.history.write_text("epoch,seconds\n0,1\n")),
        "history.csv is damaged",
        IN_THE_WAY,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_damaged_run_is_not_gone_on_with_and_loses_nothing(
    name: str, run: RunFolder, images: Path, refusal: Callable[..., str]
) -> None:
    damage, file, way_out = CASES[name]
    damage(run)
    before = snapshot(run.path)
    line = refusal(*tiny_fit(images), "--run_dir", run.path)
    assert line.startswith(f"error: {run.path}/")
    assert file in line
    assert way_out in line
    assert before.items() <= snapshot(run.path).items()
    assert not run.finished or "metrics" in name or "config" in name


def test_a_run_whose_figures_were_lost_is_tested_again_to_the_same_figures(
    run: RunFolder, tiny_run: RunFolder, images: Path
) -> None:
    run.metrics.write_bytes(BYTES)
    main([*tiny_fit(images), "--run_dir", str(run.path)])
    assert run.read_metrics()["test"] == tiny_run.read_metrics()["test"]
    assert run.predictions.read_bytes() == tiny_run.predictions.read_bytes()


REPORTED: dict[str, tuple[Damage, str]] = {
    "metrics.json of nothing": (lambda run: run.metrics.write_text("{}"), "metrics.json"),
    "metrics.json a list": (lambda run: run.metrics.write_text("[1]"), "metrics.json"),
    "metrics.json a deep nest": (lambda run: run.metrics.write_text("[" * 100_000), "metrics.json"),
    "metrics.json of bytes": (lambda run: run.metrics.write_bytes(BYTES), "metrics.json"),
    "predictions.csv gone": (lambda run: run.predictions.unlink(), "predictions.csv"),
    "predictions.csv cut": (lambda run: cut(run.predictions), "predictions.csv"),
    "predictions.csv empty": (lambda run: run.predictions.write_text(""), "predictions.csv"),
    "predictions.csv of bytes": (lambda run: run.predictions.write_bytes(BYTES), "predictions.csv"),
    "predictions.csv of an unknown class": (
        lambda run: run.predictions.write_text("path,label\na,b\n"),
        "predictions.csv",
    ),
    "history.csv of words": (lambda run: run.history.write_text("epoch\nx\n"), "history.csv"),
    "config.yaml gone": (lambda run: run.config.unlink(), "config.yaml"),
    "config.yaml of bytes": (lambda run: run.config.write_bytes(b"\xff\xfe"), "config.yaml"),
    "mistakes.csv of other columns": (
        lambda run: (run.mistakes / "mistakes.csv").write_text("path\nx\n"),
        "mistakes.csv",
    ),
}


@pytest.mark.parametrize("name", REPORTED)
def test_a_report_of_a_damaged_run_names_the_file_and_keeps_the_old_page(
    name: str, run: RunFolder, refusal: Callable[..., str]
) -> None:
    damage, file = REPORTED[name]
    damage(run)
    before = snapshot(run.path)
    line = refusal("report", run.path)
    assert f"{run.path}/" in line
    assert file in line
    assert "again" in line
    assert snapshot(run.path) == before
