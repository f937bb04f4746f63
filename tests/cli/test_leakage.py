"""Nothing is tested on images that it was trained on without a loud word, whatever it started from."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from run_parts import parts

from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder

PRETRAINED = ["--model.backbone", "test_convnext", "--model.weights", "none", "--data.image_size", "32"]
PRETRAINED += ["--trainer.accelerator", "cpu", "--trainer.max_epochs", "1", "--trainer.precision", "32-true"]


def fit(model: str, images: Path, run: RunFolder, *flags: str) -> list[str]:
    return ["fit", "--model", model, *PRETRAINED, "--data.root", str(images), "--run_dir", str(run.path), *flags]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Path]) -> Path:
    return make_folder(tmp_path_factory.mktemp("data") / "images", size=32)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory, data: Path) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("runs") / "head")
    main(fit("FeatureHead", data, run))
    return run


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, data: Path, head: RunFolder) -> RunFolder:
    """Give a run on another split than that of the head that it started from."""
    run = RunFolder(tmp_path_factory.mktemp("runs") / "tuned")
    start = ["--model.init_head_from", str(head.best_checkpoint)]
    main(fit("FineTuned", data, run, *start, "--data.split_seed", "3"))
    return run


@pytest.mark.slow
def test_a_head_that_knew_test_images_is_said_loudly_and_stands_in_metrics_table_and_report(
    data: Path, head: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = RunFolder(tmp_path / "comparison/tuned")
    main(fit("FineTuned", data, run, "--model.init_head_from", str(head.best_checkpoint), "--data.split_seed", "3"))
    said = capsys.readouterr().err
    test, before = parts(run)["test"], parts(head)
    trained, chosen = len(test & before["train"]), len(test & before["val"])
    assert trained > 0
    sentence = f"{trained} of the {len(test)} test images are among those that {head.best_checkpoint}, which the run"
    assert f"warning: {sentence}" in said
    assert run.read_metrics()["leakage"] == {
        **{"source": str(head.best_checkpoint), "images": len(test), "trained": trained, "chosen": chosen}
    }
    assert (
        f"CAUTION: tuned: {sentence}" in " ".join(run.report.read_text().split()) or sentence in run.report.read_text()
    )
    shutil.copytree(head.path, tmp_path / "comparison/head")
    main(["report", str(tmp_path / "comparison")])
    page = (tmp_path / "comparison/report.html").read_text()
    assert f"CAUTION: tuned: {sentence}" in page
    assert "CAUTION: these models were NOT tested on the same images" in page


@pytest.mark.slow
def test_a_run_on_the_split_of_its_head_has_no_such_word(
    data: Path, head: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = RunFolder(tmp_path / "tuned")
    main(fit("FineTuned", data, run, "--model.init_head_from", str(head.best_checkpoint)))
    assert "warning" not in capsys.readouterr().err
    leakage = run.read_metrics()["leakage"]
    assert (leakage["trained"], leakage["chosen"]) == (0, 0)
    assert "CAUTION" not in run.report.read_text()
    assert head.read_metrics()["leakage"] is None


@pytest.mark.slow
def test_a_head_that_does_not_say_what_it_knows_is_said_too(
    data: Path, head: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    silent = torch.load(head.best_checkpoint, weights_only=True)
    del silent["images"]
    torch.save(silent, tmp_path / "silent.ckpt")
    run = RunFolder(tmp_path / "tuned")
    main(fit("FineTuned", data, run, "--model.init_head_from", str(tmp_path / "silent.ckpt")))
    sentence = "does not say which images it was trained on"
    assert sentence in capsys.readouterr().err
    assert run.read_metrics()["leakage"]["trained"] is None
    assert sentence in run.report.read_text()


@pytest.mark.slow
def test_what_a_head_knew_is_handed_down_to_whatever_starts_from_it(
    data: Path, head: RunFolder, tuned: RunFolder, capsys: pytest.CaptureFixture
) -> None:
    known = parts(head)["train"] | parts(tuned)["train"]
    splits = tuned.path / "asked.csv"
    # Every image that only the head was trained on is tested.
    with tuned.splits.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    moved = [row for row in rows if row[2] in parts(head)["train"] - parts(tuned)["train"]]
    assert moved
    for row in rows:
        row[3] = "test" if row in moved else "train" if row[3] == "test" else row[3]
    with splits.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    asked = {row[2] for row in rows if row[3] == "test"}
    command = ["test", "--images", "split", "--data.root", str(data), "--data.splits", str(splits)]
    main([*command, "--ckpt_path", str(tuned.best_checkpoint), "--run_dir", str(splits.parent / "evaluation")])
    count = len(asked & known)
    assert f"warning: {count} of the {len(asked)} test images are among those that this checkpoint was TRAINED on" in (
        capsys.readouterr().err
    )


@pytest.mark.slow
def test_a_resumed_run_keeps_what_it_knows_of_its_head_and_does_not_need_it(
    data: Path, head: RunFolder, tuned: RunFolder, tmp_path: Path
) -> None:
    run = RunFolder(Path(shutil.copytree(tuned.path, tmp_path / "tuned")))
    before, start = run.read_metrics()["leakage"], json.loads(run.start.read_text())
    run.metrics.unlink()
    best = torch.load(run.best_checkpoint, weights_only=True)
    torch.save({name: value for name, value in best.items() if name != "complete"}, run.best_checkpoint)
    gone = tmp_path / "moved/best.ckpt"
    main(fit("FineTuned", data, run, "--model.init_head_from", str(gone), "--data.split_seed", "3"))
    assert run.read_metrics()["leakage"] == before | {"source": str(gone)}
    assert json.loads(run.start.read_text()) == start


@pytest.mark.slow
def test_another_head_at_the_same_place_is_refused(
    data: Path, head: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file, run = tmp_path / "head.ckpt", RunFolder(tmp_path / "tuned")
    shutil.copy(head.best_checkpoint, file)
    main(fit("FineTuned", data, run, "--model.init_head_from", str(file)))
    other = torch.load(file, weights_only=True)
    other["state_dict"] = {name: value + 1 for name, value in other["state_dict"].items()}
    torch.save(other, file)
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        main(fit("FineTuned", data, run, "--model.init_head_from", str(file)))
    assert "holds a run that started from another head than" in capsys.readouterr().err


@pytest.mark.slow
def test_checkpoints_of_another_run_in_a_run_folder_are_refused(
    data: Path, head: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = RunFolder(tmp_path / "other")
    main(fit("FeatureHead", data, other, "--data.split_seed", "3"))
    trained = len(parts(head)["test"] & parts(other)["train"])
    for name in ("last", "best"):
        run = RunFolder(Path(shutil.copytree(head.path, tmp_path / name)))
        run.metrics.unlink()
        if name == "last":
            best = torch.load(run.best_checkpoint, weights_only=True)
            torch.save({key: value for key, value in best.items() if key != "complete"}, run.best_checkpoint)
        shutil.copy(other.checkpoints / f"{name}.ckpt", run.checkpoints / f"{name}.ckpt")
        capsys.readouterr()
        with pytest.raises(SystemExit, match="2"):
            main(fit("FeatureHead", data, run))
        said = capsys.readouterr().err
        assert f"{run.checkpoints / name}.ckpt was not made from the images and the split that" in said
        assert f"({trained} of the test images were trained on)" in said
        assert not run.metrics.exists()
