"""What real folders do, through the real commands."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pytest
from corpus import noise, save, snapshot, tiny_fit
from PIL import Image

from kth_lightning.cli.main import main
from kth_lightning.data.module import ImageData
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models.checkpoint import load_classifier
from kth_lightning.predict.predictor import Predictor

Prepared = Callable[..., tuple[str, dict[str, str], list[str]]]
Refusal = Callable[..., str]
KINDS = {
    "a.jfif": "JPEG", "b.jpe": "JPEG", "c.gif": "GIF", "d.avif": "AVIF", "e.ppm": "PPM", "f.pgm": "PPM",
    "g.jp2": "JPEG2000", "h.heic": "HEIF", "i": "JPEG", "j.dat": "PNG",
}  # fmt: skip


@pytest.fixture
def kinds(root: Path) -> Path:
    """Add an image of every kind, and files that are none."""
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    for number, (name, kind) in enumerate(KINDS.items()):
        image = noise(100 + number)
        (image.convert("L") if name.endswith("pgm") else image).save(root / "cat" / name, kind)
    Image.new("RGB", (40, 40)).save(root / "cat/k.cr2", "TIFF")  # a camera's preview, as far as Pillow knows
    (root / "cat/l.mp4").write_bytes(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(1000))
    (root / "cat/m.txt").write_text("BMW, P5 and other notes")
    return root


def test_kinds_are_told_by_content(prepared: Prepared, kinds: Path) -> None:
    summary, audit, usable = prepared(kinds)
    assert {f"cat/{name}" for name in KINDS} < {*usable}
    assert "16 of 17 files usable in 2 classes" in summary
    assert {path: reason.partition(":")[0] for path, reason in audit.items()} == {
        "cat/k.cr2": "camera raw",
        "cat/l.mp4": "no image",
        "cat/m.txt": "no image",
    }
    assert "develop it to JPEG or TIFF" in audit["cat/k.cr2"]


@pytest.mark.slow
def test_fit_says_which_files_it_passes_over_or_takes_for_two_classes(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for number in range(3):
        (root / f"dog/{number}.cr2").write_bytes((root / f"dog/{number}.png").read_bytes())
        (root / f"cat/film{number}.mp4").write_bytes(b"a film")
        save(root / f"cat/twin{number}.png", 50 + number)
        shutil.copy(root / f"cat/twin{number}.png", root / f"dog/twin{number}.png")
    main([*tiny_fit(root), "--run_dir", str(tmp_path / "run")])
    said = capsys.readouterr().err.splitlines()
    assert "6 other files (3 .cr2, 3 .mp4) passed over" in said
    assert any(
        line.startswith("warning: 3 images of the same content in different classes, such as cat") for line in said
    )


def test_heic_without_its_reader_is_a_sentence(
    prepared: Prepared, kinds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    _, audit, usable = prepared(kinds)
    assert len(usable) == 15
    assert audit["cat/h.heic"] == "HEIC: its reader is not installed; run uv pip install '.[heic]' in the clone"
    monkeypatch.undo()  # as if it had been installed, which the sentence advises
    _, audit, usable = prepared(kinds)
    assert len(usable) == 16
    assert "cat/h.heic" not in audit


def test_predict_counts_what_it_passes_over(
    tiny_run: RunFolder, kinds: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--ckpt_path", str(tiny_run.best_checkpoint), "--output"]
    main(["predict", str(kinds / "cat"), *flags, str(tmp_path / "out.csv")])
    passed_over = "3 other files (1 .cr2, 1 .mp4, 1 .txt) passed over"
    assert f"13 of 13 images classified; {passed_over}; the table is " in capsys.readouterr().out
    main(["explain", str(kinds / "cat"), *flags, str(tmp_path / "maps")])
    assert passed_over in capsys.readouterr().out


def test_brackets_in_a_folder_above_a_glob_are_its_name(
    tiny_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save(tmp_path / "June [2024]/a.png", 1)
    output = str(tmp_path / "out.csv")
    main(["predict", f"{tmp_path}/June [2024]/*.png", "--ckpt_path", str(tiny_run.best_checkpoint), "--output", output])
    assert "1 of 1 images classified" in capsys.readouterr().out


@pytest.fixture
def inside(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in the folder of images, as people do."""
    for name in ("cat", "dog"):
        for number in range(3, 8):
            save(root / name / f"{number}.png", 20 * ord(name[0]) + number)
    monkeypatch.chdir(root)
    return root


@pytest.mark.slow
def test_commands_in_the_folder_of_images_never_take_their_output_for_data(
    inside: Path, prepared: Prepared, capsys: pytest.CaptureFixture
) -> None:
    before = snapshot(inside)
    main(["explore", "--data.root", ".", "--data.image_size", "32"])
    main(tiny_fit(Path()))
    (run,) = map(RunFolder, (inside / "runs").iterdir())
    metrics = run.read_metrics()
    capsys.readouterr()
    main(tiny_fit(Path()))
    assert "is finished" in capsys.readouterr().err
    run.metrics.unlink()
    main(tiny_fit(Path()))  # goes on, for the data is what it was
    assert run.read_metrics()["hashes"] == metrics["hashes"]
    main(["explain", ".", "--ckpt_path", str(run.best_checkpoint), "--output", "cat/maps"])
    assert "16 of 16 images explained" in capsys.readouterr().out
    summary, _, _ = prepared(inside)
    assert "16 of 16 files usable in 2 classes" in summary
    for folder in ("explore", "runs", str(inside / "cat/maps")):
        assert f"{folder} was written by kth_lightning and passed over" in summary
    assert {*before} <= {*snapshot(inside)}


@pytest.mark.parametrize("command", ["fit", "explore", "compare"])
def test_an_output_folder_that_is_a_class_is_refused(inside: Path, refusal: Refusal, command: str) -> None:
    kept = snapshot(inside)
    flag = "--output" if command == "explore" else "--run_dir"
    words = tiny_fit(Path()) if command == "fit" else [command, "--data.root", "."]
    line = refusal(*words, flag, "cat")
    assert f"{flag} cat is a folder with images, such as cat/0.png; name a new folder" in line
    assert snapshot(inside) == kept


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, RunFolder]:
    """Train where 4 of 10 pandas are cut and a bear is too small; give what was said and the run."""
    folder = tmp_path_factory.mktemp("damaged")
    for position, name in enumerate(("bear", "panda", "wolf")):
        for number in range(30 if name == "bear" else 10):
            file = save(folder / f"root/{name}/{number:02d}.png", 40 * position + number)
            if name == "panda" and number < 4:
                file.write_bytes(file.read_bytes()[:1000])
    Image.new("RGB", (8, 8)).save(folder / "root/bear/30.png")
    (folder / "root/bear/notes.txt").write_text("no image")
    with redirect_stderr(io.StringIO()) as said:
        main([*tiny_fit(folder / "root"), "--run_dir", str(folder / "run")])
    return said.getvalue(), RunFolder(folder / "run")


LOST = "5 of 51 files left out: 4 truncated, 1 too small; panda loses 4 of its 10"


@pytest.mark.slow
def test_what_is_left_out_is_said_where_people_look(damaged: tuple[str, RunFolder]) -> None:
    said, run = damaged
    (line,) = (line for line in said.splitlines() if "left out" in line)
    assert line.startswith(f"warning: {LOST}; see ")
    with Path(line.rpartition("see ")[2]).open(encoding="utf-8") as stream:
        assert sum(not row["of"] for row in csv.DictReader(stream)) == 6
    assert run.read_metrics()["left_out"] == {
        "files": 51,
        "left_out": 5,
        "reasons": {"truncated": 4, "too small": 1},
        "classes": {"bear": {"left_out": 1, "of": 31}, "panda": {"left_out": 4, "of": 10}},
        "ways_out": {},
    }
    assert f"Images: {LOST}." in run.report.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def twelve_bits(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Train on 12-bit values, in 16-bit and in 32-bit files: dark cats and bright dogs."""
    folder = tmp_path_factory.mktemp("deep")
    for position, name in enumerate(("cat", "dog")):
        (folder / "root" / name).mkdir(parents=True)
        for number in range(6):
            values = np.random.default_rng(10 * position + number).integers(0, 2048, (40, 40)) + 2047 * position
            values[0, :2] = 0, 4095
            Image.fromarray(values.astype(np.uint16 if number % 2 else np.int32)).save(
                folder / f"root/{name}/{number}.{'png' if number % 2 else 'tif'}"
            )
    run = RunFolder(folder / "run")
    main([*tiny_fit(folder / "root"), "--run_dir", str(run.path)])
    return run


@pytest.mark.slow
def test_deep_values_have_one_range_from_the_data_to_the_prediction(
    twelve_bits: RunFolder, prepared: Prepared, tmp_path: Path
) -> None:
    root = twelve_bits.path.parent / "root"
    summary, _, _ = prepared(root)
    assert "12 of 12 images are deeper than 8 bits: their values from 0 to 4095 become black to white" in summary
    assert twelve_bits.read_metrics()["value_range"] == [0, 4095]
    assert load_classifier(twelve_bits.best_checkpoint).value_range == [0, 4095]
    values = np.random.default_rng(5).integers(0, 4096, (40, 40))
    as_bytes = np.rint(values / 4095 * 255).astype(np.uint8)
    for name, kind in (("a.png", np.uint16), ("b.tif", np.int32), ("c.tif", np.float32), ("d.png", None)):
        Image.fromarray(as_bytes if kind is None else values.astype(kind)).save(tmp_path / name)
    files = [tmp_path / name for name in ("a.png", "b.tif", "c.tif", "d.png")]
    found = Predictor(twelve_bits.best_checkpoint, "cpu")(files)
    assert len({item.probability for item in found}) == 1
    other = Predictor(twelve_bits.best_checkpoint, "cpu", value_range=(0, 65535))(files)
    assert other[0].probability == other[1].probability != found[0].probability
    assert other[3].probability == found[3].probability


def test_an_exported_file_says_what_deep_values_become(twelve_bits: RunFolder, tmp_path: Path) -> None:
    output = tmp_path / "net.pt2"
    main(["export", "--ckpt_path", str(twelve_bits.best_checkpoint), "--output", str(output)])
    card = (tmp_path / "net.pt2.md").read_text(encoding="utf-8")
    assert "scale 0 to 4095 to 0 to 255 first" in card
    assert "test images of its run" in card  # which the file gives the same probabilities for


@pytest.mark.slow
def test_other_data_are_read_with_the_range_of_training(twelve_bits: RunFolder, tmp_path: Path) -> None:
    """A brighter image, added afterwards, widens neither the run's own images nor what the weights are tested on."""
    root = tmp_path / "root"
    shutil.copytree(twelve_bits.path.parent / "root", root)
    Image.fromarray(np.full((40, 40), 60_000, np.uint16)).save(root / "cat/bright.png")
    data = ImageData(root=str(root), splits=str(twelve_bits.splits), ignore_new=True)
    assert (data.value_range, len(data.catalogue.images)) == ([0, 4095], 12)
    losses = []
    for flags in ([], ["--data.value_range", "[0, 4095]"], ["--data.value_range", "[0, 60000]"]):
        ours = ["--config", str(twelve_bits.config), "--ckpt_path", str(twelve_bits.best_checkpoint)]
        evaluation = RunFolder(tmp_path / f"evaluation-{len(losses)}")
        main(["test", *ours, "--run_dir", str(evaluation.path), "--data.root", str(root), *flags])
        losses.append(evaluation.read_metrics()["test"]["loss"]["value"])
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.slow
def test_the_range_can_be_given(twelve_bits: RunFolder, prepared: Prepared, refusal: Refusal, tmp_path: Path) -> None:
    root = twelve_bits.path.parent / "root"
    run = RunFolder(tmp_path / "run")
    main([*tiny_fit(root), "--data.value_range", "[0, 65535]", "--run_dir", str(run.path)])
    assert run.read_metrics()["value_range"] == [0, 65535]
    assert "give two numbers, the lower first" in refusal(*tiny_fit(root), "--data.value_range", "[5, 1]")


def test_eight_bit_classifiers_ask_for_a_range_where_no_file_states_one(
    tiny_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    Image.fromarray(np.zeros((40, 40), np.int32)).save(tmp_path / "a.tif")
    command = ["predict", str(tmp_path), "--ckpt_path", str(tiny_run.best_checkpoint), "--output"]
    main([*command, str(tmp_path / "out.csv")])
    assert "0 of 1 images classified, 1 could not be read, such as " in (said := capsys.readouterr().out)
    assert "unknown range: nothing says which values are black and white; give --value_range" in said
    main([*command, str(tmp_path / "out.csv"), "--value_range", "[0, 4095]"])
    assert "1 of 1 images classified" in capsys.readouterr().out


def test_a_jpeg_of_200_megapixels_is_decoded_at_a_reduced_scale(prepared: Prepared, root: Path) -> None:
    Image.effect_noise((200, 100), 50).resize((20_000, 10_000)).save(root / "cat/large.jpg", quality=30)
    assert "cat/large.jpg" in prepared(root)[2]


def test_the_most_pixels_are_a_flag_that_the_refusal_names(
    prepared: Prepared, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--data.root", str(root), "--data.cache_dir", str(tmp_path / "cache"), "--data.max_pixels"]
    for name in ("plain.jpg", "progressive.jpg", "large.png"):
        noise(5, 800).save(root / "cat" / name, progressive=name == "progressive.jpg")
    main(["prepare", *flags, "100000"])
    assert "too large: 2 (cat/large.png, cat/progressive.jpg)" in capsys.readouterr().out
    (audit,) = (tmp_path / "cache/catalogues").glob("*/audit.csv")
    assert "raise --data.max_pixels (of predict and explain: --max_pixels)" in audit.read_text()
    main(["prepare", *flags, "1000000"])
    assert "9 of 9 files usable" in capsys.readouterr().out


def test_forms_of_unicode_are_one_class_from_training_to_validation(prepared: Prepared, tmp_path: Path) -> None:
    for seed, (part, form) in enumerate((("train", "NFC"), ("val", "NFD"))):
        save(tmp_path / "root" / part / unicodedata.normalize(form, "école") / "0.png", seed)
        save(tmp_path / "root" / part / "dog/0.png", 10 + seed)
    summary, _, _ = prepared(tmp_path / "root")
    assert "4 of 4 files usable in 2 classes" in summary


@pytest.mark.parametrize("column", ["classes", "groups"])
def test_names_that_look_alike_in_a_table_are_refused_too(
    refusal: Refusal, root: Path, tmp_path: Path, column: str
) -> None:
    rows = [f"root/{name}/{number}.png,{name},cat" for name in ("cat", "dog") for number in range(3)]
    rows[0] = {"classes": "root/cat/0.png,Cat,cat", "groups": "root/cat/0.png,cat,Cat"}[column]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,group", *rows]), encoding="utf-8")
    line = refusal("prepare", "--data.table", tmp_path / "labels.csv")
    assert f"the {column} 'Cat' (U+0043 U+0061 U+0074) and 'cat' (U+0063 U+0061 U+0074) look alike" in line


@pytest.mark.parametrize("both", [False, True])
def test_a_pipe_that_closes_is_no_error(both: bool) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "kth_lightning", "--help"],
            stdout=writing,
            stderr=writing if both else subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == ((141, None) if both else (0, ""))


def test_metrics_are_plain_json(damaged: tuple[str, RunFolder]) -> None:
    assert json.loads(damaged[1].metrics.read_text(encoding="utf-8"))["value_range"] is None
