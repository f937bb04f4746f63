import csv
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kth_lightning.callbacks.test_explanations import draw_mistakes, measure_maps
from kth_lightning.cli.main import main
from kth_lightning.data.module import ImageData
from kth_lightning.data.square import Square
from kth_lightning.explain.explanation import Explanation, explain
from kth_lightning.explain.overlay import captioned, enlarge, overlay
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.split_file import read_split
from kth_lightning.models.checkpoint import load_classifier
from kth_lightning.predict.predictor import Predictor

FIT = ["fit", "--model", "BenchmarkCNN", "--data.image_size", "64", "--trainer.max_epochs", "1"]
FIT += ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pack coloured boxes in grey images of 90x60, and their masks, like KTH-ANIMALS."""
    folder = tmp_path_factory.mktemp("kth")
    rng = np.random.default_rng(0)
    for number, label in enumerate(("bear", "cow", "deer")):
        for part in ("original", "segment"):
            (folder / "animal_database" / label / part).mkdir(parents=True)
        for image in range(10):
            pixels, mask = rng.integers(90, 130, (60, 90, 3), np.uint8), np.full((60, 90), 2, np.uint8)
            pixels[10:40, 30:70, number], mask[10:40, 30:70] = 255, 1
            Image.fromarray(pixels).save(folder / "animal_database" / label / f"original/{image}.jpg")
            Image.fromarray(mask).save(folder / "animal_database" / label / f"segment/{image}.png")
    with tarfile.open(folder / "kth.tar.gz", "w:gz") as tar:
        tar.add(folder / "animal_database", "animal_database")
    return folder / "kth.tar.gz"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> RunFolder:
    folder = tmp_path_factory.mktemp("run")
    sizes = ["--data.val_size", "6", "--data.test_size", "6"]
    main([*FIT, "--data.archive", str(archive), *sizes, "--run_dir", str(folder)])
    return RunFolder(folder)


@pytest.fixture
def command(run: RunFolder, tmp_path: Path) -> Callable[..., list[dict[str, str]]]:
    def run_command(*argv: object, output: Path = tmp_path / "maps") -> list[dict[str, str]]:
        flags = ["--ckpt_path", str(run.best_checkpoint), "--output", str(output), "--accelerator", "cpu"]
        main(["explain", *map(str, argv), *flags])
        return rows(output)

    return run_command


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "explain.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def refusal(capsys: pytest.CaptureFixture, *argv: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["explain", *map(str, argv)])
    assert stopped.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def distance(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, int) - np.asarray(other, int)).mean())


def noise(file: Path, width: int = 80, height: int = 60) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(file.name))
    Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(file)
    return file


@pytest.mark.slow
def test_every_image_gets_an_overlay_of_its_own_and_a_row(
    run: RunFolder, command: Callable[..., list[dict[str, str]]], tmp_path: Path
) -> None:
    files = [noise(tmp_path / "in" / name) for name in ("a/x.png", "b/c/x.png", "b/x.jpg", "b/x.png")]
    found = command(tmp_path / "in/a", tmp_path / "in/b")
    assert {row["path"] for row in found} == {str(file) for file in files}
    assert len({row["overlay"] for row in found}) == 4
    assert all((tmp_path / "maps" / row["overlay"]).stat().st_size for row in found)
    predictor = Predictor(run.best_checkpoint, "cpu")
    for prediction, row in zip(predictor([row["path"] for row in found]), found, strict=True):
        assert (row["label"], row["error"]) == (prediction.label, "")
        assert float(row["probability"]) == pytest.approx(prediction.probability, abs=1e-5)
        assert float(row["novelty"]) == pytest.approx(prediction.novelty, abs=0.1)


def test_the_nearest_training_images_are_named_where_the_run_is_at_hand(
    run: RunFolder, command: Callable[..., list[dict[str, str]]], archive: Path, tmp_path: Path
) -> None:
    data = ImageData(archive=str(archive), splits=str(run.splits))
    index = int(data.split.indices("train")[2])
    (row,) = command(data.catalogue.file(index), output=tmp_path / "near")
    assert row["nearest_1"] == data.catalogue.images[index].path
    assert float(row["distance_1"]) == pytest.approx(0, abs=1e-3)
    assert 0 < float(row["distance_2"]) <= float(row["distance_3"])
    trained = {item.path for item in read_split(run.splits) if item.part == "train"}
    assert {row["nearest_2"], row["nearest_3"]} <= trained


@pytest.mark.parametrize("size", [(400, 200), (200, 400), (30, 20), (1600, 800)])
def test_an_overlay_keeps_the_images_shape_and_leaves_room_for_words(
    size: tuple[int, int], command: Callable[..., list[dict[str, str]]], tmp_path: Path
) -> None:
    three, one = (
        Image.open(
            tmp_path / name / command(noise(tmp_path / "x.png", *size), *flags, output=tmp_path / name)[0]["overlay"]
        )
        for name, flags in (("three", ()), ("one", ("--top_k", "1")))
    )
    line = (three.height - one.height) / 2
    assert line >= 20
    assert three.width <= 1024
    if size[0] > size[1]:
        assert three.width / (one.height - 2 * line) == pytest.approx(size[0] / size[1], rel=0.1)


def test_an_image_turned_by_exif_is_drawn_upright(command: Callable[..., list[dict[str, str]]], tmp_path: Path) -> None:
    image, exif = Image.open(noise(tmp_path / "x.png", 600, 200)), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    drawn = Image.open(tmp_path / "maps" / command(tmp_path / "turned.jpg")[0]["overlay"])
    assert drawn.height > 600


def test_what_cannot_be_read_gets_a_row_with_the_reason_and_the_rest_goes_on(
    command: Callable[..., list[dict[str, str]]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "in"
    noise(folder / "good.png")
    noise(folder / f"{'n' * 250}.png")  # with the suffix of an overlay, longer than a file's name may be
    (folder / "none.jpg").write_bytes(b"no image")
    (folder / "empty.png").touch()
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:3000])
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    found = {Path(row["path"]).name: row for row in command(folder)}
    assert {name for name, row in found.items() if not row["error"]} == {"good.png", "moving.gif"}
    reasons = {"none.jpg": "unreadable", "empty.png": "unreadable", "dot.png": "too small", "bomb.png": "too large"}
    for name, reason in ({"cut.png": ""} | reasons).items():
        assert reason in found[name]["error"]
        assert found[name]["label"] == found[name]["overlay"] == ""
    row = found[f"{'n' * 250}.png"]
    assert row["label"]
    assert (row["overlay"], row["error"]) == ("", "its overlay cannot be written: File name too long")
    assert "2 of 8 images explained" in capsys.readouterr().out


def test_nothing_readable_at_all_is_still_a_table(command: Callable[..., list[dict[str, str]]], tmp_path: Path) -> None:
    (tmp_path / "none.png").write_bytes(b"")
    assert [row["overlay"] for row in command(tmp_path / "none.png")] == [""]


def test_overlays_of_an_earlier_command_are_not_explained(
    command: Callable[..., list[dict[str, str]]], tmp_path: Path
) -> None:
    noise(tmp_path / "in/x.png")
    for _ in range(2):
        assert len(command(tmp_path / "in", output=tmp_path / "in/maps")) == 1


def test_overlays_stay_in_the_output_folder_whatever_the_paths_are(
    command: Callable[..., list[dict[str, str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise(tmp_path / "in/x.png")
    noise(tmp_path / "in/deep/y.png")
    monkeypatch.chdir(tmp_path / "in/deep")
    assert len(command("../x.png", "*.png")) == 2
    assert {path.name for path in (tmp_path / "in").rglob("*.png")} == {"x.png", "y.png"}
    assert len(list((tmp_path / "maps").rglob("*.png"))) == 2


def test_a_map_lights_its_place_and_dims_the_rest() -> None:
    drawn = np.asarray(
        overlay(Image.new("RGB", (40, 20), "gray"), np.array([[-5, 2], [0, 0]], np.float32)).convert("L")
    )
    assert drawn.shape == (20, 40)
    assert (
        np.unravel_index(drawn.argmax(), drawn.shape)[0] < 10 <= 20 <= np.unravel_index(drawn.argmax(), drawn.shape)[1]
    )
    assert drawn[2, 38] > 150 > 100 > drawn[2, 2] == drawn[18, 2]


@pytest.mark.parametrize("resize", ["squash", "letterbox", "crop"])
@pytest.mark.parametrize(("width", "height"), [(120, 80), (80, 120), (96, 96), (200, 21)])
def test_a_map_lies_on_what_it_is_of(resize: str, width: int, height: int) -> None:
    column, row = np.meshgrid(np.arange(width), np.arange(height))
    slope = np.stack([column, row, column + row], axis=-1).astype(np.uint8)
    square = Square(64, "bilinear", resize)
    side = min(width, height)
    top, left = ((height - side) // 2, (width - side) // 2) if resize == "crop" else (0, 0)
    inner = slice(top + 4, height - top - 4), slice(left + 4, width - left - 4)  # a filter sees less of what is beyond
    for channel in (0, 1):
        map_ = square.pixels(Image.fromarray(slope))[..., channel].astype(np.float32)
        laid = enlarge(map_, width, height, square)
        assert np.abs(laid[inner] - slope[..., channel][inner]).max() < 3
        unseen = np.isneginf(laid)
        assert unseen.sum() == (width * height - side * side if resize == "crop" else 0)
        assert not unseen[inner].any()


def test_a_flat_map_and_a_long_class_name_can_be_drawn() -> None:
    drawn = overlay(Image.new("RGB", (40, 20), "gray"), np.zeros((3, 3), np.float32))
    sheet = captioned(drawn, ["a very long name of a class " * 5, "b"], [0.0, 1.0])
    # The name stops before the bars.
    column = np.asarray(sheet.convert("L"))[-60:, sheet.width // 2 - 8 : sheet.width // 2]
    assert (column == 255).all()


def test_the_test_set_of_a_run_is_explained_and_measured(
    run: RunFolder, command: Callable[..., list[dict[str, str]]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    found = command("--test_set", "true")
    predictions = run.read_predictions()
    assert [Path(row["path"]).parts[-3:] for row in found] == [Path(path).parts for path in predictions.paths]
    assert sorted(row["overlay"] for row in found) == sorted(f"{path}.map.png" for path in predictions.paths)
    assert "on 6 test images with masks" in capsys.readouterr().out
    with (tmp_path / "maps/localisation.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [row["class"] for row in table] == ["bear", "cow", "deer"]
    assert sum(int(row["n"]) for row in table) == 6
    assert all(
        0 <= float(row[name]) <= 1 for row in table for name in ("pointing", "pointing_low", "iou_mask", "iou_box")
    )


def test_test_images_that_have_moved_can_be_given(
    run: RunFolder, command: Callable[..., list[dict[str, str]]], archive: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved.tar.gz"
    moved.write_bytes(archive.read_bytes())
    assert len(command("--test_set", "true", "--data.archive", moved)) == 6


def test_mistakes_of_a_test_are_written_the_most_confident_first(run: RunFolder, archive: Path, tmp_path: Path) -> None:
    data = ImageData(archive=str(archive), val_size=6, test_size=6, image_size=64)
    index = data.split.indices("test").tolist()
    labels = data.labels[index].numpy()
    probabilities = np.eye(3)[labels]
    for row, confidence in ((1, 0.6), (4, 0.9)):
        probabilities[row] = np.roll([0, confidence, 1 - confidence], labels[row])
    model, other = load_classifier(run.best_checkpoint), RunFolder(tmp_path / "run")
    shutil.copytree(run.checkpoints, other.checkpoints)
    shutil.copy(run.splits, other.splits)
    draw_mistakes(model, data, index, labels, probabilities, other)
    mistakes = other.read_mistakes()
    assert [mistake.path for mistake in mistakes] == [data.catalogue.images[index[row]].path for row in (4, 1)]
    assert [mistake.confidence for mistake in mistakes] == [0.9, 0.6]
    nearer: list[float] = []
    for mistake in mistakes:
        assert mistake.label != mistake.prediction
        own, true = (
            next(explain(model, [data.catalogue.root / mistake.path], [model.class_names.index(name)]))
            for name in (mistake.prediction, mistake.label)
        )
        assert isinstance(own, Explanation)
        assert isinstance(true, Explanation)
        with Image.open(other.mistakes / mistake.image) as image, Image.open(other.mistakes / mistake.map) as drawn:
            assert (image.size, image.format) == (drawn.size, drawn.format) == ((90, 60), "JPEG")
            assert distance(image, own.image) < 10
            nearer.append(distance(drawn, overlay(own.image, true.map)) - distance(drawn, overlay(own.image, own.map)))
    assert min(nearer) >= 0  # two maps of a class that nothing speaks for are equally dark
    assert max(nearer) > 0
    alike = other.read_look_alikes()
    assert [item.mistake for item in alike] == [mistake.image for mistake in mistakes for _ in range(3)]
    assert [item.distance for item in alike[:3]] == sorted(item.distance for item in alike[:3])
    for item in alike:
        assert f"{item.label}/original/" in item.path
        with Image.open(other.mistakes / item.image) as image:
            assert max(image.size) == 90
    found = measure_maps(model, data, index, other)
    assert found is not None
    assert found["n"] == 6
    assert found["pointing"]["low"] <= found["pointing"]["value"] <= found["pointing"]["high"]
    assert [row["n"] for row in other.read_localisation()] == [2, 2, 2]


def test_a_test_without_mistakes_or_masks_writes_nothing(run: RunFolder, images: Path, tmp_path: Path) -> None:
    data = ImageData(root=str(images), image_size=64)
    index = data.split.indices("test").tolist()
    labels = data.labels[index].numpy()
    model = load_classifier(run.best_checkpoint)
    draw_mistakes(model, data, index, labels, np.eye(3)[labels], RunFolder(tmp_path / "run"))
    assert measure_maps(model, data, index, RunFolder(tmp_path / "run")) is None
    assert not (tmp_path / "run").exists()


def test_bad_input_is_refused_in_a_sentence(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    image, checkpoint = noise(tmp_path / "x.png"), run.best_checkpoint
    (tmp_path / "empty").mkdir()
    (tmp_path / "alone.ckpt").write_bytes(checkpoint.read_bytes())
    known, output = ["--ckpt_path", checkpoint], ["--output", tmp_path / "maps"]
    for argv, part in (
        ((tmp_path / "nothing.png", *known, *output), "nothing.png"),
        ((tmp_path / "empty", *known, *output), "no image"),
        ((*known, *output), "--test_set true"),
        ((image, "--test_set", "true", *known, *output), "--test_set"),
        ((image, *output), "ckpt_path"),
        ((image, "--ckpt_path", tmp_path / "missing.ckpt", *output), "missing.ckpt"),
        ((image, "--ckpt_path", image, *output), "not a checkpoint"),
        ((image, *known, "--output", image), "--output"),
        ((image, *known, *output, "--top_k", "0"), "--top_k"),
        (("--test_set", "true", "--ckpt_path", tmp_path / "alone.ckpt", *output), "run folder"),
    ):
        sentence = refusal(capsys, *argv)
        assert sentence.startswith("error: ")
        assert part in sentence
    assert not (tmp_path / "maps").exists()
