import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from corpus import save, snapshot, tiny_fit

from kth_lightning.cli.main import main
from kth_lightning.data.prepare import prepare
from kth_lightning.data.sources.folder import FolderSource
from kth_lightning.data.sources.source import Listing
from kth_lightning.errors import InputError
from kth_lightning.io.csv_text import read_csv
from kth_lightning.io.run_folder import RunFolder

Prepared = Callable[..., tuple[str, dict[str, str], list[str]]]
Refusal = Callable[..., str]
NAMES = [
    "two words",
    " led by a space",
    "Zürich",
    "e\u0301t\u00e9",
    "猫",
    "🐈‍⬛",
    "line\nbreak",
    "car\rriage",
    "tab\tbed",
]
NAMES += ['quoted "cat"', "comma, semicolon;", "=SUM(A1)", "-rf", "%s{0}", "<b>bold</b>", "\x1b[31mred", "a" * 250]


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name)[:30] for name in NAMES])
def test_a_class_keeps_its_name_whatever_it_is(prepared: Prepared, root: Path, name: str) -> None:
    for number in range(3):
        save(root / name / f"{number}.png", 50 + number)
    summary, audit, usable = prepared(root)
    assert {f"{name}/{number}.png" for number in range(3)} < {*usable}
    assert len(usable) == 9
    assert audit == {}
    assert "9 of 9 files usable in 3 classes" in summary


ODD = ["two words", "🐈 Zürich", "line\nbreak", 'comma, "quoted"', "$x^$", "\ue000", "دب"]


@pytest.mark.slow
def test_odd_class_names_come_back_from_training_prediction_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for position, name in enumerate(ODD):
        for number in range(5):
            save(tmp_path / "root" / name / f"{number}.png", 10 * position + number)
    kept = snapshot(tmp_path / "root")
    main([*tiny_fit(tmp_path / "root"), "--run_dir", str(tmp_path / "run")])
    assert capsys.readouterr().err.count("no font on this machine has all characters of ") == 1
    run = RunFolder(tmp_path / "run")
    output = tmp_path / "out.jsonl"
    flags = ["--ckpt_path", str(run.best_checkpoint), "--top_k", "7"]
    image = str(tmp_path / "root/line\nbreak/0.png")
    main(["predict", image, *flags, "--output", str(output)])
    (row,) = map(json.loads, output.read_text(encoding="utf-8").splitlines())
    assert {row["label"], *(row[f"label_{rank}"] for rank in range(2, 8))} == {*ODD}
    small = ["--data.image_size", "32"]
    main(["explain", image, *flags, "--output", str(tmp_path / "maps")])
    main(["explore", *small, "--data.root", str(tmp_path / "root"), "--output", str(tmp_path / "explored")])
    for folder in (run.figures, tmp_path / "maps", tmp_path / "explored"):
        shown = {row["class"]: row["number"] for row in read_csv(folder / "class_numbers.csv")}
        assert {"line\nbreak", "\ue000"} <= shown.keys() <= {"line\nbreak", "\ue000", "🐈 Zürich"}
        assert shown["\ue000"] == f"#{sorted(ODD).index(chr(0xE000))}"
    assert f"{shown[chr(0xE000)]} is \ue000" in (tmp_path / "explored/explore.html").read_text(encoding="utf-8")
    assert "warning: no" not in capsys.readouterr().err  # it was said
    assert snapshot(tmp_path / "root") == kept


@pytest.mark.parametrize("name", ["class\nwith a line break", "class\x1b[2J", "class \u2028 separated"])
def test_an_odd_name_in_a_refusal_does_not_break_its_line(refusal: Refusal, root: Path, name: str) -> None:
    (root / name).mkdir()
    line = refusal("prepare", "--data.root", root)
    assert "is an empty class, without any image; add images or remove it" in line
    assert line.isprintable()


@pytest.mark.slow
def test_a_validation_folder_without_a_rare_class_is_trained_on_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for position, (part, names) in enumerate((("train", "cat dog emu"), ("val", "cat dog"), ("test", "cat dog emu"))):
        for place, name in enumerate(names.split()):
            for number in range(4):
                save(tmp_path / f"root/{part}/{name}/{number}.png", 100 * position + 10 * place + number)
    main([*tiny_fit(tmp_path / "root"), "--run_dir", str(tmp_path / "run")])
    assert "; no validation image shows emu\n" in capsys.readouterr().err
    assert RunFolder(tmp_path / "run").finished


REFUSED = {
    "no folder": ([], "there is no folder "),
    "nothing in it": (["./"], "has no class folders; put the images into one folder per class"),
    "images alone": (
        ["0.png", "1.png"],
        "has images but no class folders; put the images into one folder per class",
    ),
    "hidden classes": ([".cat/0.png", ".dog/0.png"], "has no class folders; put the images into one folder per class"),
    "one class": (["cat/0.png", "cat/1.png"], "has images of one class only (cat); a classifier needs at least two"),
    "one class beside masks": (
        ["cat/0.png", "masks/0.png"],
        "a classifier needs at least two (masks was taken for masks and passed over; give --data.class_level 1 if it",
    ),
    "an empty class": (
        ["cat/0.png", "dog/"],
        "dog is an empty class, without any image; add",
    ),
    "a class of texts": (["cat/0.png", "dog/a.txt"], "dog is an empty class, without any image"),
    "a class of empty files": (
        ["cat/0.png", "dog/.0.png", "dog/1.png=0"],
        "the class 'dog' has no usable image (dog/1.png",
    ),
    "empty files alone": (
        ["cat/0.png=0", "dog/1.png=0"],
        "has no usable image (the first: cat/0.png: unreadable: the file",
    ),
    "no training folder": (["valid/cat/0.png", "test/cat/1.png"], "has no train folder beside test; add one"),
    "an untrained class": (["train/cat/0.png", "test/cta/1.png"], "has no training images, did you mean 'cat'?"),
    "an empty train folder": (["train/", "test/cat/1.png"], "train has no class folders; put"),
}


@pytest.mark.parametrize(("files", "sentence"), REFUSED.values(), ids=REFUSED)
def test_folders_without_classes_to_tell_apart_are_refused(
    refusal: Refusal, tmp_path: Path, files: list[str], sentence: str
) -> None:
    root = tmp_path / "images"
    for seed, name in enumerate(files):
        file = root / name.removesuffix("=0")
        if name.endswith("/"):
            file.mkdir(parents=True)
        else:
            save(file, seed) if file.suffix == ".png" else file.parent.mkdir() or file.write_text("a text")
        if name.endswith("=0"):
            file.write_bytes(b"")
    kept = snapshot(tmp_path)
    line = refusal("prepare", "--data.root", root)
    assert sentence in line
    assert str(root) in line
    assert snapshot(tmp_path) == kept


@pytest.mark.parametrize("images", [1, 2])
def test_a_class_too_small_to_be_split_is_named_before_training(
    refusal: Refusal, root: Path, tmp_path: Path, images: int
) -> None:
    for number in range(images):
        save(root / "emu" / f"{number}.png", 50 + number)
    for number in range(10):
        save(root / "cat" / f"more{number}.png", 70 + number)
    line = refusal(*tiny_fit(root), "--run_dir", tmp_path / "run")
    assert f"class 'emu' has {images} image" in line
    assert "needs 3, one each for training, validation and testing; add images, or leave the class out" in line
    assert not (tmp_path / "run").exists()


def test_a_file_in_place_of_the_folder_is_said(refusal: Refusal, root: Path) -> None:
    line = refusal("prepare", "--data.root", root / "cat/0.png")
    assert "cat/0.png is a file; name a folder that holds one folder per class" in line


def test_folders_that_are_linked_in_a_circle_are_read_once(prepared: Prepared, root: Path) -> None:
    (root / "cat/again").symlink_to(root / "cat")
    (root / "cat/up").symlink_to(root)
    _, audit, usable = prepared(root)
    assert len(usable) == len({*usable}) >= 6
    assert all("duplicate" in reason for reason in audit.values())


def test_a_name_that_is_no_text_is_reported_and_its_class_kept(prepared: Prepared, root: Path) -> None:
    (root / os.fsdecode(b"cat/\xff\xfe.png")).write_bytes((root / "cat/0.png").read_bytes())
    _, audit, usable = prepared(root)
    assert len(usable) == 6
    assert audit == {"cat/\\xff\\xfe.png": "unreadable: its path is not valid UTF-8, rename it"}


def test_a_class_whose_name_is_no_text_is_refused_by_name(refusal: Refusal, root: Path) -> None:
    save(root / os.fsdecode(b"d\xf6g") / "0.png", 70)
    line = refusal("prepare", "--data.root", root)
    assert "its path is not valid UTF-8, rename it" in line
    assert line.isprintable()


def test_a_folder_that_may_not_be_listed_is_reported_and_not_passed_over_in_silence(root: Path, tmp_path: Path) -> None:
    closed = root / "cat/closed"
    save(closed / "9.png", 90)
    closed.chmod(0)
    code = f"""
import os, pathlib
from kth_lightning.data.sources.folder import FolderSource
if os.getuid() == 0:
    os.setuid(65534)
print(FolderSource(pathlib.Path({str(root)!r})).list(pathlib.Path("unused")).problems)
"""
    for folder in (root, *root.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    closed.chmod(0o755)
    assert f"{closed}'), 'unreadable folder: Permission denied')" in done.stdout, done.stderr


def test_an_image_that_vanishes_between_listing_and_reading_is_reported(root: Path, tmp_path: Path) -> None:
    class _Vanishing(FolderSource):
        def list(self, cache_dir: Path) -> Listing:
            listing = super().list(cache_dir)
            (root / "cat/1.png").unlink()
            return listing

    result = prepare(_Vanishing(root), tmp_path / "cache")
    assert [item.path for item in result.catalogue.images if item.label == "cat"] == ["cat/0.png", "cat/2.png"]
    assert "cat/1.png,cat,unreadable: No such file or directory" in (result.folder / "audit.csv").read_text()


def test_a_class_that_vanishes_between_listing_and_reading_is_named(root: Path, tmp_path: Path) -> None:
    class _Vanishing(FolderSource):
        def list(self, cache_dir: Path) -> Listing:
            listing = super().list(cache_dir)
            shutil.rmtree(root / "cat")
            return listing

    with pytest.raises(InputError, match=r"the class 'cat' has no usable image \(cat/0.png: unreadable: No such file"):
        prepare(_Vanishing(root), tmp_path / "cache")


def test_an_image_that_vanishes_before_training_is_named(refusal: Refusal, root: Path, tmp_path: Path) -> None:
    """The catalogue is prepared, the image gone, and the folder looked at anew."""
    main(["prepare", "--data.root", str(root)])
    (root / "cat/1.png").unlink()
    (root / "cat/2.png").unlink()
    line = refusal(*tiny_fit(root), "--run_dir", tmp_path / "run")
    assert "class 'cat' has 1 image to draw from and needs 3" in line


@pytest.mark.slow
def test_a_class_name_does_not_steer_the_terminal(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for number in range(3):
        save(root / "\x1b[31mred" / f"{number}.png", 50 + number)
    main(["prepare", "--data.root", str(root)])
    main([*tiny_fit(root), "--run_dir", str(tmp_path / "run")])
    said = capsys.readouterr()
    assert "\x1b[31m" not in said.out + said.err
    assert "\\x1b[31mred" in said.out
    assert "\\x1b[31mred" in said.err
