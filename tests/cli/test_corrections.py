"""Suspect labels: a comparison over folds ranks them, people mark them, and later commands honour that."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from kth_lightning import ImageData
from kth_lightning.cli.main import main
from kth_lightning.io.csv_text import csv_rows, csv_text
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.suspects_file import read_decisions
from kth_lightning.report.suspects import write_suspect_labels
from kth_lightning.report.table import Part

pytestmark = pytest.mark.slow

SMALL = ["--data.image_size", "32", "--trainer.accelerator", "cpu", "--trainer.devices", "1", "--data.batch_size", "8"]
RECIPE = """
model:
  class_path: BenchmarkCNN
  init_args:
    filters: [4]
    block_dropout: [0]
    optimizer: {class_path: Adam, init_args: {lr: 0.02}}
data: {augmentation: none}
trainer: {max_epochs: 10}
patience: 10
"""
WRONG = "class1/wrong.png"

Refusal = Callable[..., str]


def fit(recipe: Path, images: Path, run: Path, *flags: str) -> list[str]:
    return ["fit", "--config", str(recipe), "--data.root", str(images), "--run_dir", str(run), *SMALL, *flags]


def compare(recipe: Path, images: Path, folder: Path, *flags: str) -> list[str]:
    models = ["--models", str(recipe), "--folds", "2"]
    return ["compare", *models, "--data.root", str(images), "--run_dir", str(folder), *SMALL, *flags]


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def mark(file: Path, to: Path, **decisions: str) -> Path:
    """Write decisions on images, by the names of their files, as a spreadsheet saves them."""
    header, *rows = csv_rows(file.read_text())
    column = header.index("decision")
    for row in rows:
        row[column] = decisions.get(Path(row[0]).stem, row[column])
    to.write_text("\ufeff" + csv_text([header, *rows]).replace(",", ";"))
    return to


def labels(run: Path) -> dict[str, str]:
    return {row["path"]: row["label"] for row in table(run / "splits.csv")}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Path]) -> Path:
    """Give images of three classes, one of which has an image in the folder of another."""
    folder = make_folder(tmp_path_factory.mktemp("data") / "images", size=32)
    (folder / "class0/005.png").rename(folder / WRONG)
    (folder / "class2/007.png").rename(folder / "class2/dark.png")
    return folder


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, recipe: Path, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "folds"
    main(compare(recipe, data, folder))
    return folder


@pytest.fixture
def images(data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data, tmp_path / "images"))


def test_a_wrong_label_is_the_first_of_all_images(compared: Path) -> None:
    rows = table(compared / "suspects.csv")
    assert list(rows[0]) == ["path", "label", "suggested", "score", "decision", "sha256"]
    assert len(rows) == len({row["path"] for row in rows}) == 36
    assert (rows[0]["path"], rows[0]["label"], rows[0]["suggested"]) == (WRONG, "class1", "class0")
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.5 > scores[1]
    page = (compared / "suspects.html").read_text()
    assert "1 of 36 images look" in page
    assert page.count("<figure>") == 30
    assert page.index(WRONG) < page.index("/000.png")


def test_features_that_are_stored_rank_also_where_training_is_poor(data: Path, tmp_path: Path) -> None:
    flags = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--data.views", "0"]
    main(compare(Path("head"), data, tmp_path, *flags))
    (entry,) = json.loads((tmp_path / "table.json").read_text())
    assert entry["acc"]["value"] < 0.9
    first, second, *_ = table(tmp_path / "suspects.csv")
    assert (first["path"], first["suggested"]) == (WRONG, "class0")
    assert float(first["score"]) > 0.5 > float(second["score"])


@pytest.fixture(scope="module")
def corrections(compared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the comparison's table with decisions: one to relabel, one to drop, three to keep."""
    to = tmp_path_factory.mktemp("corrections") / "marked.csv"
    return mark(compared / "suspects.csv", to, **{"wrong": "relabel", "dark": "Drop", "011": "keep"})


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory, recipe: Path, data: Path, corrections: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "corrected"
    main(fit(recipe, data, folder, "--data.corrections", str(corrections)))
    return folder


def test_a_run_honours_corrections_and_counts_them(corrected: Path) -> None:
    trained = labels(corrected)
    assert trained[WRONG] == "class0"
    assert "class2/dark.png" not in trained
    assert len(trained) == 35
    metrics = RunFolder(corrected).read_metrics()
    assert metrics["corrections"] == {"relabelled": 1, "dropped": 1, "kept": 3, "without_effect": 0}
    assert metrics["left_out"]["reasons"] == {"dropped": 1}
    assert "Labels were corrected by hand: 1 relabelled, 1 dropped, 3 kept." in (corrected / "report.html").read_text()


def test_the_audit_of_corrected_images_tells_of_them(
    corrections: Path, images: Path, capsys: pytest.CaptureFixture
) -> None:
    (images / WRONG).rename(images / "class1/moved.png")  # images are known by their content
    main(["prepare", "--data.root", str(images), "--data.corrections", str(corrections)])
    summary = capsys.readouterr().out
    assert f"--data.corrections {corrections}: 1 relabelled, 1 dropped, 3 kept\n" in summary
    assert "relabelled: 1 (class1/moved.png)" in summary
    assert "35 of 36 files usable" in summary
    assert "class0 12, class1 12, class2 11" in summary
    audit = table(Path(summary.rpartition("audit.csv are in ")[2].strip()) / "audit.csv")
    assert [(row["path"], row["label"], row["reason"]) for row in audit] == [
        ("class1/moved.png", "class0", "relabelled: it was class1"),
        ("class2/dark.png", "class2", "dropped: by the corrections"),
    ]


def test_corrections_of_images_that_are_not_what_they_were_are_counted(
    corrections: Path, images: Path, capsys: pytest.CaptureFixture
) -> None:
    (images / WRONG).unlink()
    Image.effect_noise((32, 32), 9).save(images / "class1/011.png")
    (images / "class2/dark.png").rename(images / "class0/dark.png")
    main(["prepare", "--data.root", str(images), "--data.corrections", str(corrections)])
    assert (
        f"{corrections}: 0 relabelled, 0 dropped, 2 kept; without effect, since of its images 1 is gone ('{WRONG}'), "
        "1 is changed ('class1/011.png'), 1 is relabelled ('class2/dark.png')\n" in capsys.readouterr().out
    )


def test_a_run_without_corrections_is_not_repeated_with_them_nor_the_other_way_round(
    compared: Path, corrected: Path, corrections: Path, recipe: Path, data: Path, tmp_path: Path, refusal: Refusal
) -> None:
    with_them = ["--data.corrections", str(corrections)]
    line = refusal(*compare(recipe, data, compared, *with_them))
    assert "was made from other images: 1 is gone ('class2/dark.png'), 1 is relabelled ('class1/wrong.png'); " in line
    assert "it began without --data.corrections" in line
    run = compared / "fold-0/tiny"
    again = ["fit", "--config", str(run / "config.yaml"), "--run_dir", str(run)]
    assert "it began without --data.corrections; to start anew" in refusal(*again, *with_them)
    kept = mark(compared / "suspects.csv", tmp_path / "kept.csv", wrong="keep")
    main([*again, "--data.corrections", str(kept)])  # by which images and labels stay the same
    assert "it began with --data.corrections; to start anew" in refusal(*fit(recipe, data, corrected))
    shutil.copy(corrections, tmp_path / "copy.csv")
    main(fit(recipe, data, corrected, "--data.corrections", str(tmp_path / "copy.csv")))


def test_decisions_are_handed_on_to_the_next_table(
    compared: Path, corrections: Path, data: Path, tmp_path: Path
) -> None:
    part = Part("tiny", [RunFolder(compared / f"fold-{fold}/tiny") for fold in range(2)])
    corrected = ImageData(root=str(data), corrections=str(corrections))
    found = write_suspect_labels(part, corrected, tmp_path)
    assert (found.ranked, found.doubted, found.decided) == (35, 0, 5)
    rows = {row["path"]: row for row in table(tmp_path / "suspects.csv")}
    assert len(rows) == 36
    assert [rows[WRONG][name] for name in ("label", "suggested", "decision")] == ["class1", "class0", "relabel"]
    assert float(rows[WRONG]["score"]) < 0.5
    assert [rows["class2/dark.png"][name] for name in ("decision", "score")] == ["drop", ""]
    assert rows["class0/011.png"]["decision"] == "keep"
    page = (tmp_path / "suspects.html").read_text()
    assert "5 others are decided on" in page
    assert WRONG not in page

    marked = mark(tmp_path / "suspects.csv", tmp_path / "suspects.csv", **{"010": "keep"})
    before = read_decisions(marked)
    write_suspect_labels(part, corrected, tmp_path)
    assert sorted(read_decisions(marked)) == sorted(before)
    assert len(before) == 8


def test_images_that_the_comparison_did_not_begin_with_are_not_ranked(
    compared: Path, images: Path, tmp_path: Path
) -> None:
    (images / "class9").mkdir()
    for folder in ("class0", "class9"):
        Image.effect_noise((32, 32), 9).save(images / folder / "new.png")
    part = Part("tiny", [RunFolder(compared / f"fold-{fold}/tiny") for fold in range(2)])
    assert write_suspect_labels(part, ImageData(root=str(images)), tmp_path).ranked == 36
    assert table(tmp_path / "suspects.csv")[0]["path"] == WRONG


def test_a_marked_table_that_cannot_be_read_is_left_as_it_is(
    compared: Path, recipe: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = Path(shutil.copytree(compared, tmp_path / "folds"))
    marked = mark(folder / "suspects.csv", folder / "suspects.csv", wrong="relable")
    before = marked.read_bytes()
    main(compare(recipe, data, folder))
    assert marked.read_bytes() == before
    assert "the decision on 'class1/wrong.png' is 'relable'; write keep, relabel or drop" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda file: file.unlink(), "marked.csv: cannot be read (No such file or directory); check the path"),
        (lambda file: file.write_text("path,label\na,b\n"), "has no column 'suggested', only 'path', 'label'"),
        (lambda file: mark(file, file, wrong="drip"), f"the decision on '{WRONG}' is 'drip'; write keep, relabel"),
        (
            lambda file: file.write_text(file.read_text().replace("class1;class0;", "class1;klass;")),
            f"'{WRONG}' is to be relabelled as 'klass', and no image has that label; write one of the classes",
        ),
        (
            lambda file: file.write_text(file.read_text().replace("class1;class0;", "class1;class1;")),
            f"'{WRONG}' is to be relabelled, and its column 'suggested' is 'class1'",
        ),
        (
            lambda file: file.write_text(file.read_text() + file.read_text().split("\n")[1] + "\n"),
            f"'{WRONG}' is decided on more than once",
        ),
        (
            lambda file: mark(file, file, **{f"{number:03}": "drop" for number in range(12)}, dark="drop"),
            "leaves no image in the class 'class1'; take a decision back",
        ),
    ],
    ids=["missing", "no table", "decision", "class", "same class", "twice", "empty class"],
)
def test_corrections_that_make_no_sense_are_one_sentence(
    change: Callable[[Path], object], named: str, corrections: Path, data: Path, tmp_path: Path, refusal: Refusal
) -> None:
    marked = Path(shutil.copy(corrections, tmp_path))
    change(marked)
    line = refusal("prepare", "--data.root", data, "--data.corrections", marked)
    assert line.startswith(f"error: --data.corrections {marked}: ")
    assert named in line
