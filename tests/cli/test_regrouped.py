"""Which images belong together is a part of what a run began with."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder

pytestmark = pytest.mark.slow

TINY = ["--model", "BenchmarkCNN", "--model.filters", "[2,4]", "--model.block_dropout", "[0,0]"]
TINY += ["--data.image_size", "32", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "1"]

Refusal = Callable[..., str]


@pytest.fixture
def images(tmp_path: Path, make_folder: Callable[..., Path]) -> list[str]:
    root = make_folder(tmp_path / "images", classes=2, size=32)
    return [f"{file},{file.parent.name}" for file in sorted(root.rglob("*.png"))]


def write(table: Path, images: list[str], group: Callable[[int], str] | None = None, split: bool = False) -> None:
    parts = ["train", "train", "val", "test"]
    columns = [[",split", *(f",{parts[number % 4]}" for number in range(len(images)))]] if split else []
    columns += [[",group", *(f",{group(number)}" for number in range(len(images)))]] if group else []
    rows = ["path,label", *images]
    table.write_text("\n".join(map("".join, zip(rows, *columns, strict=True))))


def test_a_run_is_not_taken_for_one_of_images_in_other_groups(
    images: list[str], tmp_path: Path, refusal: Refusal, capsys: pytest.CaptureFixture
) -> None:
    table, run = tmp_path / "table.csv", RunFolder(tmp_path / "run")
    fit = ["fit", *TINY, "--data.table", str(table), "--run_dir", str(run.path)]
    write(table, images)
    main(fit)
    figures = run.metrics.read_text()
    write(table, images, lambda number: f"place {number % 5}")
    line = refusal(*fit)
    assert f"{run.path} is finished and was made from other images: the groups of its images are others" in line
    assert "(none then, 5 groups of 24 images now); to start anew, give another --run_dir" in line
    run.metrics.unlink()
    assert "the groups of its images are others (none then" in refusal(*fit)

    # A run of an earlier version does not tell its groups, and goes on.
    run.metrics.write_text(figures)
    start = json.loads(run.start.read_text())
    del start["groups"]
    run.start.write_text(json.dumps(start))
    main(fit)
    assert "is finished; delete it" in capsys.readouterr().err


def test_groups_of_other_names_are_the_same_and_others_are_told(
    images: list[str], tmp_path: Path, refusal: Refusal
) -> None:
    table, run = tmp_path / "table.csv", RunFolder(tmp_path / "run")
    fit = ["fit", *TINY, "--data.table", str(table), "--run_dir", str(run.path)]
    write(table, images, lambda number: str(number % 6))
    main(fit)
    write(table, images, lambda number: f"place {5 - number % 6}")
    main(fit)
    write(table, images, lambda number: str(number % 6 // 2))
    assert "(6 groups of 24 images then, 3 groups of 24 images now)" in refusal(*fit)


def test_a_comparison_refuses_other_groups_and_trains_again_where_told_to(
    images: list[str], tmp_path: Path, refusal: Refusal
) -> None:
    table, recipe = tmp_path / "table.csv", tmp_path / "tiny.yaml"
    recipe.write_text(
        "model: {class_path: BenchmarkCNN, init_args: {filters: [2, 4], block_dropout: [0, 0]}}\n"
        "data: {image_size: 32}\ntrainer: {max_epochs: 1}\n"
    )
    compare = ["compare", "--models", str(recipe), "--data.table", str(table), "--run_dir", str(tmp_path / "compare")]
    compare += ["--trainer.accelerator", "cpu"]
    write(table, images, split=True)
    main(compare)
    write(table, images, lambda number: str(number % 4), split=True)
    assert "the groups of its images are others" in refusal(*compare)
    main([*compare, "--retrain", "true"])
    main(compare)
