import itertools
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

import kth_lightning
from kth_lightning import BenchmarkCNN, ImageData
from kth_lightning.cli import curve_workers, learning_curve
from kth_lightning.cli.main import main
from kth_lightning.errors import InputError
from kth_lightning.io.csv_text import read_csv
from kth_lightning.io.curve_folder import CurveFolder
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.split_file import read_split
from kth_lightning.models.optimizer import ArticleRMSprop

FLAGS = [
    "--model", "BenchmarkCNN", "--model.filters", "[8]", "--model.block_dropout", "[0]", "--model.optimizer.lr", "0.01",
    "--data.image_size", "32", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--trainer.precision", "32",
    "--sizes", "4", "--folds", "3",
]  # fmt: skip


def command(images: Path, folder: Path, *more: str) -> list[str]:
    return ["learning_curve", *FLAGS, "--data.root", str(images), "--run_dir", str(folder), *more]


@pytest.fixture(scope="module")
def drawn(images: Path, tmp_path_factory: pytest.TempPathFactory) -> CurveFolder:
    folder = tmp_path_factory.mktemp("curves") / "curve"
    main(command(images, folder))
    return CurveFolder(folder)


@pytest.fixture
def copied(drawn: CurveFolder, tmp_path: Path) -> CurveFolder:
    return CurveFolder(shutil.copytree(drawn.path, tmp_path / "copy"))


def part(run: RunFolder, name: str) -> set[str]:
    return {row.path for row in read_split(run.splits) if row.part == name}


@pytest.mark.slow
def test_shares_grow_inside_each_other_and_every_image_is_tested_once_at_each(drawn: CurveFolder) -> None:
    tested = {size: [] for size in range(1, 5)}
    for fold in range(3):
        runs = [drawn.run(fold, size) for size in range(1, 5)]
        shares = [part(run, "train") for run in runs]
        assert all(small < large for small, large in itertools.pairwise(shares))
        assert len({frozenset(part(run, "val")) for run in runs}) == 1
        for size, run in enumerate(runs, start=1):
            tested[size] += run.read_predictions().paths
            assert set(run.read_predictions().paths) == part(run, "test")
            assert not part(run, "test") & (part(run, "train") | part(run, "val"))
            assert not run.checkpoints.exists()
    assert all(len(paths) == len(set(paths)) == 60 for paths in tested.values())


def test_tables_agree_with_the_predictions(drawn: CurveFolder) -> None:
    rows = read_csv(drawn.table)
    assert [(row["size"], row["fold"]) for row in rows] == [
        (str(size), str(fold)) for size in range(1, 5) for fold in range(3)
    ]
    right = 0
    for row in rows:
        said = drawn.run(int(row["fold"]), int(row["size"])).read_predictions()
        share = (said.probabilities.argmax(1) == said.labels).mean()
        assert float(row["acc"]) == pytest.approx(share, rel=1e-5)
        assert row["epochs"] == "2"
        right += int((said.probabilities.argmax(1) == said.labels).sum()) if row["size"] == "4" else 0
    outcome = json.loads(drawn.outcome.read_text())
    assert outcome["sizes"][-1]["acc"]["value"] == pytest.approx(right / 60)
    assert [size["images"] for size in outcome["sizes"]] == sorted(size["images"] for size in outcome["sizes"])
    assert len(read_csv(drawn.classes)) == 3 * 4
    assert drawn.figure.exists()
    assert "Would more images help?" in drawn.report.read_text()


def test_a_repeated_command_trains_nothing_and_says_the_same(
    drawn: CurveFolder, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    before = drawn.outcome.read_bytes()
    monkeypatch.setattr(learning_curve, "train", None)
    main(command(images, drawn.path))
    assert drawn.outcome.read_bytes() == before
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {drawn.report}"


def test_an_interrupted_one_goes_on_to_the_same_figures(
    copied: CurveFolder, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for size in (1, 4):
        shutil.rmtree(copied.run(1, size).path)
    whole, work = copied.table.read_bytes(), learning_curve.train
    trained: list[str] = []

    def interrupt(argv: list[str], predictions_only: bool) -> None:
        if trained:
            raise KeyboardInterrupt
        trained.append(argv[-1])
        work(argv, predictions_only=predictions_only)

    monkeypatch.setattr(learning_curve, "train", interrupt)
    with pytest.raises(SystemExit) as stopped:
        main(command(images, copied.path))
    assert stopped.value.code == 130
    assert copied.run(1, 4).predictions.exists()
    with pytest.raises(SystemExit, match="2"):
        main(["report", str(copied.path)])
    assert "1 of 12 trainings" in capsys.readouterr().err
    monkeypatch.setattr(learning_curve, "train", work)
    main(command(images, copied.path))
    assert copied.table.read_bytes() == whole


def test_report_writes_the_page_again(copied: CurveFolder) -> None:
    copied.report.unlink()
    copied.outcome.unlink()
    main(["report", str(copied.path)])
    assert copied.report.exists()
    assert copied.outcome.exists()


def test_what_cannot_be_meant_gets_one_sentence(
    copied: CurveFolder, images: Path, tmp_path: Path, make_folder: Callable[..., Path], refusal: Callable[..., str]
) -> None:
    assert "another --trainer.max_epochs: 2 there, 3 here" in refusal(
        *command(images, copied.path, "--trainer.max_epochs", "3")
    )
    assert "leave it out" in refusal(*command(images, tmp_path / "a", "--data.num_folds", "3"))
    assert "at least 4" in refusal(*command(images, tmp_path / "a", "--sizes", "3"))
    assert "at least 2" in refusal(*command(images, tmp_path / "a", "--folds", "1"))
    few = make_folder(tmp_path / "few", images=10)
    assert "training images a class, and a learning curve needs 8; add images" in refusal(*command(few, tmp_path / "b"))
    for part in ("train", "test"):
        make_folder(tmp_path / "parts" / part, images=4)
    assert "the training part alone" in refusal(*command(tmp_path / "parts", tmp_path / "a"))
    assert not (tmp_path / "a").exists()
    more = shutil.copytree(images, tmp_path / "more")
    (more / "class0" / "000.png").rename(more / "class1" / "moved.png")
    assert "1 is relabelled" in refusal(*command(more, copied.path))


def test_a_training_that_fails_is_named(images: Path, tmp_path: Path, refusal: Callable[..., str]) -> None:
    line = refusal(*command(images, tmp_path / "curve", "--model.optimizer.lr", "1e30"))
    assert "the training on 10.3 images a class of fold 1 failed: the " in line
    assert "is not a finite number" in line


@pytest.mark.slow
def test_trainings_side_by_side_come_to_the_same_figures(
    drawn: CurveFolder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(curve_workers, "_WORTH", 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        main(command(images, tmp_path / "curve"))
    finally:
        torch.set_num_threads(threads)
    alone, beside = (read_csv(folder.table) for folder in (drawn, CurveFolder(tmp_path / "curve")))
    for one, other in zip(alone, beside, strict=True):
        assert (one["size"], one["fold"], one["train_images"]) == (other["size"], other["fold"], other["train_images"])
        assert float(one["loss"]) == pytest.approx(float(other["loss"]), rel=1e-2)
    said = capfd.readouterr().err
    assert said.count("images a class: accuracy") == 4
    assert "run folder" not in said
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_process_that_the_system_ends_is_one_sentence_and_leaves_none_behind() -> None:
    with pytest.raises(InputError, match="was killed by the system"), curve_workers.side_by_side() as pool:
        pool.submit(os._exit, 1).result()
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_python_draws_the_commands_curve_to_the_bit(drawn: CurveFolder, images: Path, tmp_path: Path) -> None:
    data = ImageData(root=str(images), image_size=32)

    def make_model(data: ImageData) -> BenchmarkCNN:
        optimizer = partial(ArticleRMSprop, lr=0.01)
        names = data.class_names
        return BenchmarkCNN(
            len(names), class_names=names, image_size=32, filters=(8,), block_dropout=(0,), optimizer=optimizer
        )

    outcome = kth_lightning.learning_curve(
        make_model, data, tmp_path / "curve", sizes=4, folds=3, max_epochs=2, accelerator="cpu", precision="32"
    )
    assert CurveFolder(tmp_path / "curve").table.read_bytes() == drawn.table.read_bytes()
    assert outcome["n"] == 60
