"""The commands `test` and `validate` of a checkpoint alone, on images that are new to it and on its run's own."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

from kth_lightning.cli.main import main
from kth_lightning.evaluation.shift import accuracy_difference
from kth_lightning.evaluation.statistics import accuracy_interval
from kth_lightning.io.run_folder import RunFolder

CPU = ["--trainer.accelerator", "cpu"]
CPU_PREDICT = ["--accelerator", "cpu"]
KNOWN, SEEN, UNKNOWN = 18, 5, 6


def evaluate(command: str, run: RunFolder, folder: Path, *flags: object) -> RunFolder:
    main([command, "--ckpt_path", str(run.best_checkpoint), "--run_dir", str(folder), *CPU, *map(str, flags)])
    return RunFolder(folder)


def draw(folder: Path, colour: int, count: int, brightness: int = 0, size: int = 64, seed: int = 1) -> None:
    rng = np.random.default_rng(seed + colour)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = rng.random((size, size, 3)) * 130 + np.eye(3)[colour] * 120 + brightness
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"new{number:03d}.png")


@pytest.fixture(scope="module")
def new(tiny_run: RunFolder, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw brighter images: no class1, an unknown one, a broken file, and some that the run was trained on."""
    root = tmp_path_factory.mktemp("new") / "images"
    draw(root / "class0", 0, 8, brightness=60)
    draw(root / "class2", 2, 5, brightness=60)
    draw(root / "stranger", 1, UNKNOWN)
    (root / "class0" / "broken.png").write_bytes(b"no image")
    with tiny_run.splits.open() as stream:
        trained = [row["path"] for row in csv.DictReader(stream) if row["part"] == "train" and "class2" in row["path"]]
    for path in trained[:SEEN]:
        shutil.copy(images / path, root / "class2" / f"seen-{Path(path).name}")
    return root


@pytest.fixture(scope="module")
def evaluation(tiny_run: RunFolder, new: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return evaluate("test", tiny_run, tmp_path_factory.mktemp("evaluation") / "folder", "--data.root", new)


@pytest.mark.slow
def test_new_images_need_no_config_and_give_a_folder_like_a_runs(evaluation: RunFolder) -> None:
    metrics, predictions = evaluation.read_metrics(), evaluation.read_predictions()
    right = predictions.probabilities.argmax(1) == predictions.labels
    assert metrics["test"]["n"] == len(right) == KNOWN
    assert predictions.class_names == ["class0", "class1", "class2"]
    acc = metrics["test"]["acc"]
    assert acc["value"] == right.mean()
    assert (acc["low"], acc["high"]) == accuracy_interval(int(right.sum()), KNOWN)
    assert metrics["left_out"]["left_out"] == 1
    with evaluation.confusion.open() as stream:
        _, *rows = csv.reader(stream)
    assert sum(int(cell) for row in rows for cell in row[1:]) == KNOWN
    assert (evaluation.figures / "reliability.png").exists()
    page = evaluation.report.read_text()
    assert "report of the evaluation" in page
    assert "Learning curves" not in page
    assert f"of {KNOWN - SEEN} unseen images correctly" in page
    evaluation.report.unlink()
    main(["report", str(evaluation.path)])
    assert evaluation.report.read_text() == page


def test_it_says_how_it_differs_from_the_runs_own_test(evaluation: RunFolder, tiny_run: RunFolder) -> None:
    own = evaluation.read_metrics()["evaluation"]["own_test"]
    before, now = tiny_run.read_predictions(), evaluation.read_predictions()
    new = np.array(["seen-" not in path for path in now.paths])  # the others were trained on
    then, later = ((item.probabilities.argmax(1) == item.labels) for item in (before, now))
    assert own["difference"]["value"] == pytest.approx(later[new].mean() - then.mean())
    assert own["compared"] == {"n": KNOWN - SEEN, "acc": evaluation.read_metrics()["evaluation"]["seen"]["new"]["acc"]}
    assert own["difference"] == accuracy_difference(own["acc"], own["compared"]["acc"])
    assert own["acc"] == tiny_run.read_metrics()["test"]["acc"]
    shifts = {row["name"]: row for row in own["shifts"]}
    assert set(shifts) == {"class mix", "brightness", "sharpness", "megapixels"}
    assert shifts["brightness"]["shifted"]
    assert shifts["brightness"]["now"] - shifts["brightness"]["then"] > 0.1
    assert not shifts["megapixels"]["shifted"]
    page = evaluation.report.read_text()
    assert "shifted: " in page
    assert "95 % interval of the difference" in page


def test_images_that_were_seen_are_counted_and_the_others_judged_alone(evaluation: RunFolder) -> None:
    seen, predictions = evaluation.read_metrics()["evaluation"]["seen"], evaluation.read_predictions()
    assert (seen["trained"], seen["chosen"]) == (SEEN, 0)
    new = np.array(["seen-" not in path for path in predictions.paths])
    right = predictions.probabilities.argmax(1) == predictions.labels
    assert seen["new"]["n"] == KNOWN - SEEN
    assert seen["new"]["acc"]["value"] == right[new].mean()


def test_promises_are_measured_on_images_that_did_not_set_them(
    evaluation: RunFolder, tiny_run: RunFolder, tmp_path: Path
) -> None:
    rows = evaluation.read_metrics()["trust"]
    assert {row["n"] for row in rows["min_accuracy"] + rows["sets"]} == {KNOWN - SEEN}
    own = evaluate("validate", tiny_run, tmp_path / "own")  # by which thresholds and sets were chosen
    assert own.read_metrics()["trust"] is None
    assert own.report.exists()


def test_unknown_classes_are_told_apart_and_a_missing_one_is_fine(
    evaluation: RunFolder, tiny_run: RunFolder, new: Path, tmp_path: Path
) -> None:
    classes = evaluation.read_metrics()["evaluation"]["classes"]
    assert classes["missing"] == ["class1"]
    assert sum(classes["unknown"]["stranger"].values()) == UNKNOWN
    assert all(label != "stranger" for label in evaluation.read_predictions().paths)
    table = tmp_path / "predictions.csv"
    command = ["predict", str(new / "stranger"), "--ckpt_path", str(tiny_run.best_checkpoint), "--output", str(table)]
    main([*command, "--accelerator", "cpu"])
    with table.open(encoding="utf-8-sig") as stream, evaluation.unknown_classes.open() as ours:
        expected = {Path(row["path"]).name: row for row in csv.DictReader(stream)}
        for row in csv.DictReader(ours):
            same = expected.pop(Path(row["path"]).name)
            assert (row["label"], row["prediction"]) == ("stranger", same["label"])
            assert float(row["confidence"]) == pytest.approx(float(same["probability"]), abs=1e-5)
    assert expected == {}


def test_what_is_printed_says_all_of_it(
    evaluation: RunFolder, tiny_run: RunFolder, new: Path, capsys: pytest.CaptureFixture
) -> None:
    before = {file: file.read_bytes() for file in evaluation.path.rglob("*") if file.is_file()}
    capsys.readouterr()
    evaluate("test", tiny_run, evaluation.path, "--data.root", new)
    printed = capsys.readouterr()
    assert "holds this evaluation" in printed.err
    for line in (
        f"% of {KNOWN} images (95 % interval",
        "the run's own test: ",
        "shifted: ",
        f"seen in training: {SEEN} trained on, 0 used to choose the epoch; accuracy on the others:",
        f"classes that the checkpoint does not know: {UNKNOWN} images",
        "classes without an image here: class1",
        f"report: {evaluation.report}",
    ):
        assert line in printed.out
    assert {file: file.read_bytes() for file in evaluation.path.rglob("*") if file.is_file()} == before


@pytest.mark.slow
def test_a_checkpoint_alone_is_tested_on_its_runs_own_images(tiny_run: RunFolder, tmp_path: Path) -> None:
    ours = evaluate("test", tiny_run, tmp_path / "ours")
    assert ours.predictions.read_bytes() == tiny_run.predictions.read_bytes()
    assert ours.read_metrics()["test"] == tiny_run.read_metrics()["test"]
    assert "are the test images of" in ours.read_metrics()["evaluation"]["own_test"]
    again = RunFolder(tmp_path / "again")
    main(["test", "--config", str(ours.config), "--run_dir", str(again.path), *CPU])
    assert again.predictions.read_bytes() == ours.predictions.read_bytes()


def test_validate_is_of_the_validation_images(tiny_run: RunFolder, tmp_path: Path) -> None:
    folder = evaluate("validate", tiny_run, tmp_path / "val")
    metrics, paths = folder.read_metrics(), folder.read_predictions().paths
    with tiny_run.splits.open() as stream:
        assert sorted(paths) == sorted(row["path"] for row in csv.DictReader(stream) if row["part"] == "val")
    assert metrics["evaluation"]["seen"] == {"trained": 0, "chosen": len(paths), "tested": 0, "new": None}
    expected = tiny_run.read_metrics()["val"]
    assert metrics["test"]["acc"]["value"] == pytest.approx(expected["acc"])
    assert metrics["test"]["loss"]["value"] == pytest.approx(expected["loss"], abs=1e-5)


def test_prescribed_test_images_are_the_ones_that_are_tested(tiny_run: RunFolder, tmp_path: Path) -> None:
    for part, count in (("train", 4), ("test", 3)):
        draw(tmp_path / "root" / part / "class0", 0, count, seed=len(part))
        draw(tmp_path / "root" / part / "class1", 1, count, seed=len(part))
    folder = evaluate("test", tiny_run, tmp_path / "folder", "--data.root", tmp_path / "root")
    assert all(path.startswith("test/") for path in folder.read_predictions().paths)
    assert folder.read_metrics()["test"]["n"] == 6


def test_images_of_one_class_with_masks_can_be_tested_by_a_table(tiny_run: RunFolder, tmp_path: Path) -> None:
    draw(tmp_path / "photos", 1, 4)
    rows = ["path,label,mask"]
    for file in sorted((tmp_path / "photos").glob("*.png")):
        mask = Image.new("L", (64, 64))
        ImageDraw.Draw(mask).rectangle((8, 8, 40, 40), fill=255)
        mask.save(file.with_suffix(".mask.png"))
        rows.append(f"photos/{file.name},class1,photos/{file.stem}.mask.png")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    folder = evaluate("test", tiny_run, tmp_path / "folder", "--data.table", tmp_path / "table.csv")
    assert folder.read_metrics()["test"]["localisation"]["n"] == 4
    assert folder.read_localisation()[0]["class"] == "class1"


def test_a_checkpoint_that_left_its_run_is_tested_and_says_what_is_not_known(
    tiny_run: RunFolder, new: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    alone = tmp_path / "alone.ckpt"
    shutil.copy(tiny_run.best_checkpoint, alone)
    main(["test", "--ckpt_path", str(alone), "--data.root", str(new), "--run_dir", str(tmp_path / "folder"), *CPU])
    evaluation = RunFolder(tmp_path / "folder").read_metrics()["evaluation"]
    assert "lies in no finished run" in evaluation["own_test"]
    assert evaluation["seen"]["trained"] == SEEN
    assert "--data.root is missing" in refusal("test", "--ckpt_path", alone)


def test_a_run_of_another_checkpoint_is_not_taken_for_its_own(tiny_run: RunFolder, new: Path, tmp_path: Path) -> None:
    run = RunFolder(Path(shutil.copytree(tiny_run.path, tmp_path / "run")))
    rows = run.splits.read_text().splitlines()
    tested = next(row for row in rows if row.endswith(",test"))
    run.splits.write_text("\n".join(row if row != tested else tested[:-4] + "train" for row in rows) + "\n")
    folder = evaluate("test", run, tmp_path / "folder", "--data.root", new)
    assert "is not the run that" in folder.read_metrics()["evaluation"]["own_test"]


def test_a_run_without_image_statistics_says_so(tiny_run: RunFolder, new: Path, tmp_path: Path) -> None:
    run = RunFolder(Path(shutil.copytree(tiny_run.path, tmp_path / "run")))
    run.image_statistics.unlink()
    folder = evaluate("test", run, tmp_path / "folder", "--data.root", new)
    assert [row["name"] for row in folder.read_metrics()["evaluation"]["own_test"]["shifts"]] == ["class mix"]
    assert "the run does not record brightness, sharpness, megapixels" in folder.report.read_text()


def test_what_cannot_be_evaluated_is_refused_in_one_sentence(
    tiny_run: RunFolder, evaluation: RunFolder, new: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    test = ["test", "--ckpt_path", tiny_run.best_checkpoint, *CPU]
    assert "says which model it holds" in refusal(*test, "--model", "BenchmarkCNN", "--data.root", new)
    assert "trained with 32" in refusal(*test, "--data.root", new, "--data.image_size", 64)
    assert "trained there; give another" in refusal(*test, "--data.root", new, "--run_dir", tiny_run.path)
    assert "cannot be read (No such file" in refusal(*test, "--config", tmp_path / "no.yaml")
    draw(tmp_path / "others" / "Class0", 0, 3)
    assert "knows class0, class1, class2; name the" in refusal(*test, "--data.root", tmp_path / "others")
    for name in "abcdefg":
        draw(tmp_path / "many" / name, 0, 1)
    assert "the images show a, b, c, d, e and 2 more, and" in refusal(*test, "--data.root", tmp_path / "many")
    draw(tmp_path / "more" / "class0", 0, 3)
    before = evaluation.predictions.read_bytes()
    line = refusal(*test, "--data.root", tmp_path / "more", "--run_dir", evaluation.path)
    assert "holds the evaluation of other images" in line
    assert "no setting --patience" in refusal(*test, "--data.root", new, "--patience", 3)
    assert evaluation.predictions.read_bytes() == before
    assert "classifier needs at least two" in refusal("prepare", "--data.root", tmp_path / "more")


def test_another_setting_of_the_figures_is_refused_in_the_folder_of_an_evaluation(
    tiny_run: RunFolder, evaluation: RunFolder, new: Path, refusal: Callable[..., str]
) -> None:
    test = ["test", "--ckpt_path", tiny_run.best_checkpoint, *CPU, "--data.root", new, "--run_dir", evaluation.path]
    for name, value in (
        ("data.value_range", "[0,9]"),
        ("trainer.precision", "bf16-mixed"),
        ("trainer.limit_test_batches", "1"),
    ):
        assert f"holds an evaluation with another --{name}: " in refusal(*test, f"--{name}", value)
    evaluate("test", tiny_run, evaluation.path, "--data.root", new, "--data.batch_size", "7")  # the same figures


def test_other_groups_or_masks_are_refused_in_the_folder_of_an_evaluation(
    tiny_run: RunFolder, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    draw(tmp_path, 0, 4)
    Image.new("L", (64, 64), 255).save(tmp_path / "mask.png")
    table = tmp_path / "table.csv"
    rows = [f"new{number:03d}.png,class0" for number in range(4)]

    def write(columns: str, *cells: str) -> None:
        table.write_text("\n".join(["path,label" + columns, *map(str.__add__, rows, cells)]))

    write("", *[""] * 4)
    test = ["test", "--ckpt_path", tiny_run.best_checkpoint, *CPU, "--data.table", table, "--run_dir", tmp_path / "out"]
    main([*map(str, test)])
    write(",group", ",a", ",a", ",b", ",b")
    assert "holds the evaluation of images in other groups" in refusal(*test)
    write(",mask", ",mask.png", *[","] * 3)
    assert "holds the evaluation of images with other masks" in refusal(*test)
    start = json.loads((tmp_path / "out" / "start.json").read_text())
    for name in ("groups", "masks"):  # which earlier versions did not write
        del start["evaluation"][name]
    (tmp_path / "out" / "start.json").write_text(json.dumps(start))
    main([*map(str, test)])


def test_deep_images_are_tested_as_they_are_predicted_by_a_classifier_of_8_bits(
    tiny_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture, refusal: Callable[..., str]
) -> None:
    rng, root = np.random.default_rng(0), tmp_path / "deep"
    for name in ("class0", "class1"):
        (root / name).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(rng.integers(600, 3300, (40, 40), np.uint16)).save(root / name / f"{name}{number}.png")
    test = ["test", "--ckpt_path", str(tiny_run.best_checkpoint), *CPU, "--data.root", str(root), "--run_dir"]
    main([*test, str(tmp_path / "out")])
    assert "their values from 0 to 65535 become black to white" in capsys.readouterr().err
    table = tmp_path / "table.csv"
    main(["predict", str(root), "--ckpt_path", str(tiny_run.best_checkpoint), "--output", str(table), *CPU_PREDICT])
    tested = RunFolder(tmp_path / "out").read_predictions()
    with table.open(encoding="utf-8-sig") as stream:
        predicted = {Path(row["path"]).name: float(row["probability"]) for row in csv.DictReader(stream)}
    for path, probabilities in zip(tested.paths, tested.probabilities, strict=True):
        assert probabilities.max() == pytest.approx(predicted[Path(path).name], abs=1e-5)
    Image.fromarray(np.zeros((40, 40), np.int32)).save(root / "class0" / "signed.tif")
    line = refusal(*test, tmp_path / "signed")
    assert "signed.tif is deeper than 8 bits" in line
    assert "give --data.value_range" in line
    main([*test, str(tmp_path / "signed"), "--data.value_range", "[0, 4095]"])


def test_a_default_folder_is_named_after_the_settings(
    tiny_run: RunFolder, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        main(["test", "--ckpt_path", str(tiny_run.best_checkpoint), "--data.root", str(new), *CPU])
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("test-")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["class_path"].endswith("BenchmarkCNN")
    assert json.loads((folder / "start.json").read_text())["evaluation"]["part"] == "test"
