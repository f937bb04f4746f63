"""Boxes of images through the commands: what is trained, tested, doubted and shown is the box, not the file."""

import csv
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from kth_lightning import ImageData
from kth_lightning.cli.main import main
from kth_lightning.evaluation.seen_images import leakage_warnings
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models.checkpoint import read_checkpoint

PHOTOS = 16
LEFT, RIGHT = "0.04 0 0.46 1", "0.5 0 0.5 1"
RECIPE = {
    "model": {"class_path": "BenchmarkCNN", "init_args": {"filters": [8, 8], "block_dropout": [0, 0]}},
    "data": {"image_size": 32, "batch_size": 8},
    "trainer": {"max_epochs": 8},
}


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw photographs that show one class on the left and another on the right, and a table with one wrong label."""
    folder = tmp_path_factory.mktemp("boxes")
    rng = np.random.default_rng(0)
    rows = [("path", "label", "box", "mask")]
    for number in range(PHOTOS):
        pixels = rng.random((48, 100, 3)) * 90
        sides = (0, 1) if number % 2 else (1, 0)
        for side, label in enumerate(sides):
            pixels[:, 50 * side : 50 * side + 50, label] += 150
            named = 1 - label if (number, side) == (3, 0) else label
            rows.append((f"{number}.png", ("red", "green")[named], (LEFT, RIGHT)[side], f"masks/{number}.png"))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        mask = np.zeros((48, 100), dtype=np.uint8)
        mask[10:30, 60:80] = 255  # in the right box alone
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    with (folder / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> RunFolder:
    flags = ["--config", str(folder / "tiny.yaml"), "--data.table", str(folder / "table.csv"), "--data.test_size", "12"]
    with warnings.catch_warnings():
        # The few validation images, all classified correctly, are no reason for it.
        warnings.filterwarnings("error", message="the training images are learnt")
        main(["fit", *flags, "--trainer.accelerator", "cpu", "--run_dir", str(folder / "run")])
    return RunFolder(folder / "run")


@pytest.mark.slow
def test_each_box_is_classified_by_what_it_shows(run: RunFolder) -> None:
    tested = run.read_predictions()
    assert len(tested.names) == len(set(tested.names)) == 12
    assert run.read_metrics()["test"]["acc"]["value"] >= 11 / 12  # a half, where the whole photograph were seen
    parts: dict[str, set[str]] = {}
    for row in rows_of(run.splits):
        parts.setdefault(row["path"], set()).add(row["part"])
    assert len(parts) == PHOTOS
    assert all(len(found) == 1 for found in parts.values())
    assert {row["box"] for row in rows_of(run.image_statistics)} == {LEFT, RIGHT}


@pytest.mark.slow
def test_a_recipe_that_crops_shows_boxes_whole_and_images_cropped(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = [f"{number}.png,{'red' if number % 2 else 'green'}\n" for number in range(PHOTOS)]
    (folder / "whole.csv").write_text("path,label\n" + "".join(rows))
    for table, resize in (("table", "letterbox"), ("whole", "crop")):
        run = RunFolder(tmp_path / table)
        flags = ["--config", str(folder / "tiny.yaml"), "--data.resize", "crop", "--trainer.max_epochs", "1"]
        main(["fit", *flags, "--data.table", str(folder / f"{table}.csv"), "--run_dir", str(run.path)])
        said = "boxes are seen whole, between bars (--data.resize letterbox)" in capsys.readouterr().err
        assert said == (resize == "letterbox")
        assert yaml.safe_load(run.config.read_text())["data"]["resize"] == resize
        assert read_checkpoint(run.best_checkpoint)["hyper_parameters"]["resize"] == resize


def test_a_box_with_a_wrong_label_is_found_shown_and_corrected_alone(folder: Path) -> None:
    comparison = folder / "comparison"
    flags = ["--models", str(folder / "tiny.yaml"), "--data.table", str(folder / "table.csv"), "--folds", "2"]
    main(["compare", *flags, "--trainer.accelerator", "cpu", "--run_dir", str(comparison)])
    table = comparison / "suspects.csv"
    rows = rows_of(table)
    assert (rows[0]["path"], rows[0]["box"], rows[0]["suggested"]) == ("3.png", LEFT, "red")
    mistakes = [item for fold in (0, 1) for item in RunFolder(comparison / f"fold-{fold}" / "tiny").read_mistakes()]
    assert ("3.png", LEFT) in [(item.path, item.box) for item in mistakes]
    rows[0]["decision"] = "relabel"
    marked = folder / "marked.csv"
    with marked.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    flags = ["--data.table", str(folder / "table.csv"), "--data.corrections", str(marked), "--config"]
    flags += [str(folder / "tiny.yaml"), "--run_dir", str(folder / "mended"), "--trainer.accelerator", "cpu"]
    main(["fit", *flags, "--trainer.max_epochs", "1"])
    before = {(row["path"], row["box"]): row["label"] for row in rows_of(folder / "table.csv")}
    after = {(row["path"], row["box"]): row["label"] for row in rows_of(folder / "mended" / "splits.csv")}
    assert after.keys() == before.keys()
    assert [key for key in before if before[key] != after[key]] == [("3.png", LEFT)]


def test_maps_are_drawn_over_boxes_and_measured_by_the_masks_inside_them(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", "--test_set", "true", "--ckpt_path", str(run.best_checkpoint), "--accelerator", "cpu"]
    main([*command, "--output", str(tmp_path / "maps")])
    rows, tested = rows_of(tmp_path / "maps" / "explain.csv"), run.read_predictions()
    assert [(Path(row["path"]).name, row["box"]) for row in rows] == list(zip(tested.paths, tested.boxes, strict=True))
    predicted = [tested.class_names[place] for place in tested.probabilities.argmax(1)]
    assert [row["label"] for row in rows] == predicted
    assert len({row["overlay"] for row in rows}) == len(rows)
    assert all((tmp_path / "maps" / row["overlay"]).exists() for row in rows)
    counted = f"{tested.boxes.count(RIGHT)} test images with masks"
    assert counted in capsys.readouterr().out


def test_files_that_were_trained_on_are_known_again_in_other_boxes_and_whole(
    folder: Path, run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = [row for row in rows_of(run.splits) if row["part"] == "train"]
    text = (folder / "table.csv").read_text()
    (folder / "moved.csv").write_text(text.replace(LEFT, "0 0 0.45 0.9").replace(RIGHT, "0.51 0 0.49 1"))
    rows = [f"{number}.png,{'red' if number % 2 else 'green'}" for number in range(PHOTOS)]
    (folder / "all.csv").write_text("\n".join(["path,label", *rows]))
    evaluate = ["test", "--ckpt_path", str(run.best_checkpoint), "--trainer.accelerator", "cpu", "--data.table"]
    for name, count in (("moved", len(trained)), ("all", len({row["path"] for row in trained}))):
        main([*evaluate, str(folder / f"{name}.csv"), "--run_dir", str(tmp_path / name)])
        assert RunFolder(tmp_path / name).read_metrics()["evaluation"]["seen"]["trained"] == count
        said = capsys.readouterr()
        assert "are among those that this checkpoint was TRAINED on" in said.err
        assert f"seen in training: {count} trained on" in said.out


@pytest.mark.slow
def test_an_older_checkpoint_of_boxes_does_not_call_other_boxes_new(
    folder: Path, run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = torch.load(run.best_checkpoint, weights_only=True)
    del older["files"]
    torch.save(older, tmp_path / "older.ckpt")
    table = (folder / "table.csv").read_text().replace(LEFT, "0 0 0.45 0.9")
    (folder / "left.csv").write_text(table)
    (folder / "both.csv").write_text(table.replace(RIGHT, "0.51 0 0.49 1"))
    known = sum(row["part"] == "train" and row["box"] == RIGHT for row in rows_of(run.splits))
    evaluate = ["test", "--ckpt_path", str(tmp_path / "older.ckpt"), "--trainer.accelerator", "cpu", "--data.table"]
    for name, begins in (
        ("left", f"at least {known} trained on"),
        ("both", "not known, since the checkpoint does not"),
    ):
        main([*evaluate, str(folder / f"{name}.csv"), "--run_dir", str(tmp_path / name)])
        assert f"seen in training: {begins}" in capsys.readouterr().out
        assert RunFolder(tmp_path / name).read_metrics()["evaluation"]["seen"]["new"] is None


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_predict_gives_one_row_a_box(
    folder: Path, run: RunFolder, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output, parquet = tmp_path / f"labels{suffix}", suffix == ".parquet" and pytest.importorskip("pyarrow.parquet")
    named = [{"category": "1", "conf": 0.9, "bbox": [*map(float, box.split())]} for box in (LEFT, RIGHT)]
    images = [{"file": f"{number}.png", "detections": named} for number in range(PHOTOS - 1)]
    content = {"images": images, "detection_categories": {"1": "animal"}}
    (tmp_path / "md.json").write_text(json.dumps(content))
    command = ["predict", str(folder / "*.png"), "--ckpt_path", str(run.best_checkpoint), "--output", str(output)]
    main([*command, "--boxes", str(tmp_path / "md.json"), "--accelerator", "cpu", "--top_k", "1"])
    said = capsys.readouterr().out
    assert (
        f"md.json: {2 * PHOTOS - 2} boxes of {PHOTOS - 1} images; 1 image is not listed in it and is taken whole"
        in said
    )
    assert f"{2 * PHOTOS - 1} of {2 * PHOTOS - 1} images classified" in said
    if suffix == ".csv":
        rows = [row | {"box": [*map(float, row["box"].split())] or None} for row in rows_of(output)]
    else:
        rows = parquet.read_table(output).to_pylist() if parquet else list(map(json.loads, output.open()))
    predicted = {(Path(row["path"]).name, tuple(row["box"] or ())): row["label"] for row in rows}
    assert len(predicted) == len(rows) == 2 * PHOTOS - 1
    tested = run.read_predictions()
    own = [tested.class_names[place] for place in tested.probabilities.argmax(1)]
    boxes = [tuple(map(float, box.split())) for box in tested.boxes]
    known = [item for item in zip(tested.paths, boxes, own, strict=True) if item[0] != f"{PHOTOS - 1}.png"]
    assert known
    assert [predicted[path, box] for path, box, _ in known] == [label for *_, label in known]


def test_predict_takes_the_training_table_and_leaves_out_what_has_no_box(
    folder: Path, run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, output = folder / "some.csv", tmp_path / "labels.csv"
    table.write_text(f"path,box\n0.png,{LEFT}\n0.png,{RIGHT}\n1.png,.9 .9 .3 .3\n")
    command = ["predict", *(str(folder / f"{number}.png") for number in (0, 1, 2)), "--output", str(output)]
    command += ["--ckpt_path", str(run.best_checkpoint), "--accelerator", "cpu"]
    main([*command, "--boxes", str(table), "--without_box", "leave_out"])
    rows = rows_of(output)
    assert [row["box"] for row in rows] == [LEFT, RIGHT, "0.9 0.9 0.3 0.3"]
    assert [bool(row["error"]) for row in rows] == [False, False, True]
    assert rows[2]["error"].startswith("box outside the image")
    capsys.readouterr()
    main(command)
    assert "was trained on boxes of images, and these images are whole; give --boxes" in capsys.readouterr().out
    assert "box" not in rows_of(output)[0]


def test_a_test_says_when_boxes_meet_a_classifier_of_whole_images_or_the_reverse(folder: Path, run: RunFolder) -> None:
    whole = folder / "whole.csv"
    whole.write_text(
        "path,label\n" + "".join(f"{number}.png,{'red' if number % 2 else 'green'}\n" for number in range(8))
    )
    checkpoint = read_checkpoint(run.best_checkpoint)
    assert checkpoint["boxed"] == sum(row["part"] == "train" for row in rows_of(run.splits))
    sentences = {
        (name, trained): [
            line
            for line in leakage_warnings(
                checkpoint | {"boxed": trained}, ImageData(table=str(folder / name)), "test", whole=True
            )
            if "trained on" in line
        ]
        for name in ("table.csv", "whole.csv")
        for trained in (0, 5)
    }
    assert [len(sentences[key]) for key in (("table.csv", 5), ("whole.csv", 0))] == [0, 0]
    assert sentences["whole.csv", 5] == [
        "the checkpoint was trained on boxes, and these are whole images; give --data.boxes"
    ]
    assert sentences["table.csv", 0] == [
        "the checkpoint was trained on whole images, and these are boxes; leave out --data.boxes"
    ]


def test_explain_takes_boxes_as_predict_does_and_says_when_there_should_be_some(
    folder: Path, run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "boxes.csv").write_text(f"path,box\n0.png,{LEFT}\n0.png,{RIGHT}\n")
    shutil.copy(folder / "0.png", tmp_path)
    shutil.copy(folder / "1.png", tmp_path)
    maps = tmp_path / "maps"  # among the images: its pictures are none of them
    command = ["explain", str(tmp_path), "--ckpt_path", str(run.best_checkpoint), "--accelerator", "cpu"]
    command += ["--output", str(maps)]
    main([*command, "--boxes", str(tmp_path / "boxes.csv")])
    said = capsys.readouterr().out
    assert "boxes.csv: 2 boxes of 1 image; 1 image is not listed in it and is taken whole: 1.png" in said
    assert [(Path(row["path"]).name, row["box"]) for row in rows_of(maps / "explain.csv")] == [
        ("0.png", LEFT),
        ("0.png", RIGHT),
        ("1.png", ""),
    ]
    main([*command, "--boxes", str(tmp_path / "boxes.csv"), "--without_box", "leave_out"])
    assert len(rows_of(maps / "explain.csv")) == 2
    main(command)
    assert "was trained on boxes of images, and these images are whole; give --boxes" in capsys.readouterr().out


def test_boxes_are_refused_where_they_would_do_nothing(
    folder: Path, run: RunFolder, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    (tmp_path / "boxes.csv").write_text(f"path,box\n{folder / '0.png'},{LEFT}\n")
    table = str(tmp_path / "boxes.csv")
    known = ["--ckpt_path", run.best_checkpoint, "--output", tmp_path / "labels.csv"]
    for flags in (["--min_box_confidence", ".99"], ["--without_box", "leave_out"]):
        for command in ("predict", "explain"):
            assert f"{flags[0]} " in (said := refusal(command, folder / "0.png", *known, *flags))
            assert "goes with --boxes; leave it out" in said
    test_set = ["explain", "--test_set", "true", *known]
    assert "--boxes goes with images" in refusal(*test_set, "--boxes", table)
    assert "goes with --boxes; leave it out" in refusal(*test_set, "--without_box", "leave_out")
    assert "give the boxes of images with --boxes" in refusal(
        "explain", folder / "0.png", *known, "--data.boxes", table
    )
    nothing = ["explain", folder / "1.png", *known, "--without_box", "leave_out", "--boxes"]
    (tmp_path / "boxes.csv").write_text(f"path,box\n{folder / '0.png'},{LEFT}\n{folder / '1.png'},\n")
    assert "no image has a box; leave out --without_box leave_out" in refusal(*nothing, table)
    assert not (tmp_path / "labels.csv").exists()


def test_predict_refuses_boxes_of_one_folder_for_images_of_two_with_the_same_names(
    folder: Path, run: RunFolder, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    for place in ("north", "south"):
        (tmp_path / place).mkdir()
        shutil.copy(folder / "0.png", tmp_path / place)
    north, south = tmp_path / "north", tmp_path / "south"
    (north / "boxes.csv").write_text(f"path,box\n0.png,{LEFT}\n")
    known = ["--ckpt_path", run.best_checkpoint, "--output", tmp_path / "labels.csv", "--boxes", north / "boxes.csv"]
    for images in ((north, south), (south,)):
        said = refusal("predict", *images, *known)
        assert "'0.png' is in" in said
        assert f"{north} " in said.replace(";", " ;")
        assert f"{south} " in said.replace(";", " ;")
    main(["predict", str(north), *map(str, known), "--accelerator", "cpu"])
    assert [row["box"] for row in rows_of(tmp_path / "labels.csv")] == [LEFT]


@pytest.fixture(scope="module")
def inverted(folder: Path) -> Path:
    """Write the table once more, with masks in which the objects are 0."""
    (folder / "inverted").mkdir()
    for file in (folder / "masks").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(file))).save(folder / "inverted" / file.name)
    (folder / "inverted.csv").write_text((folder / "table.csv").read_text().replace("masks/", "inverted/"))
    return folder / "inverted.csv"


SAID = "the masks' objects cover 91.7 % of the images on the average"


def test_explain_says_when_masks_look_inverted(
    run: RunFolder, inverted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", "--test_set", "true", "--ckpt_path", str(run.best_checkpoint), "--accelerator", "cpu"]
    main([*command, "--data.table", str(inverted), "--output", str(tmp_path / "maps")])
    assert SAID in capsys.readouterr().out


@pytest.mark.slow
def test_a_test_says_when_masks_look_inverted(
    run: RunFolder, inverted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["test", "--ckpt_path", str(run.best_checkpoint), "--trainer.accelerator", "cpu"]
    main([*command, "--data.table", str(inverted), "--run_dir", str(tmp_path / "test")])
    assert SAID in capsys.readouterr().err
