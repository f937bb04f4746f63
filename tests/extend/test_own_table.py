import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from kth_lightning.cli.main import main
from kth_lightning.data.module import ImageData
from kth_lightning.data.split_table import split_rows
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.split_file import write_split


def write(images: Path, file: Path, *columns: str) -> Path:
    """Write a table of 3 classes of 20 images: groups of two neighbours, the last four for testing, one file gone."""
    rows = [["path", "label", *columns]]
    for label in range(3):
        for number in range(20):
            group = f"visit {number // 2}"
            split = "train" if number < 12 else "val" if number < 16 else "test"
            cells = {"split": split, "group": group}
            path = f"{images}/class{label}/{number:03}.png"
            rows.append([path, f"kind {label}", *(cells[name] for name in columns)])
    rows.append([f"{images}/class0/gone.png", "kind 0", *({"split": "train", "group": ""}[name] for name in columns)])
    with file.open("w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream, delimiter=";").writerows(rows)
    return file


def parts(run: RunFolder) -> dict[str, str]:
    with run.splits.open(newline="", encoding="utf-8") as stream:
        return {row["path"]: row["part"] for row in csv.DictReader(stream)}


@pytest.mark.slow
def test_a_table_goes_the_whole_way_with_the_split_that_it_prescribes(
    images: Path, tmp_path: Path, tiny_fit: Callable, whole_way: Callable
) -> None:
    run = RunFolder(tmp_path / "run")
    whole_way(tiny_fit(run.path, "--data.table", write(images, tmp_path / "t.csv", "split")), run)
    assert {int(Path(path).stem) for path, part in parts(run).items() if part == "test"} == {16, 17, 18, 19}
    assert {int(Path(path).stem) for path, part in parts(run).items() if part == "val"} == {12, 13, 14, 15}
    predictions = tmp_path / "predictions.csv"
    main(["predict", str(images / "class1"), "--ckpt_path", str(run.best_checkpoint), "--output", str(predictions)])
    assert "kind " in predictions.read_text(encoding="utf-8").splitlines()[1]


def test_groups_are_whole_in_every_fold_and_the_missing_file_is_in_the_audit(images: Path, tmp_path: Path) -> None:
    table = write(images, tmp_path / "t.csv", "group")
    tested: list[int] = []
    for fold in range(2):
        data = ImageData(table=str(table), image_size=32, num_folds=2, fold=fold)
        by_visit: dict[str, set[str]] = {}
        for image, part in zip(data.catalogue.images, data.split.parts, strict=True):
            by_visit.setdefault(image.group, set()).add(part)
        assert len(by_visit) == 10
        assert all(len(found) == 1 for found in by_visit.values())
        tested += data.split.indices("test").tolist()
    assert sorted(tested) == list(range(60))
    assert "groups of the source: 10 of 6 images, each in one part of the split" in data.prepared.summary
    assert f"60 of 61 files usable in 3 classes\n  unreadable: 1 ({images}/class0/gone.png)" in data.prepared.summary


def test_a_group_on_both_sides_of_a_prescribed_split_is_refused(
    images: Path, tmp_path: Path, tiny_fit: Callable, refusal: Callable
) -> None:
    table = write(images, tmp_path / "t.csv", "split", "group")
    text = table.read_text(encoding="utf-8-sig").replace("test;visit 9", "test;visit 0")
    table.write_text(text, encoding="utf-8")
    line = refusal(*tiny_fit(tmp_path / "run", "--data.table", table))
    assert "the group 'visit 0' has several splits: " in line
    assert "give all its images the same split, or no group" in line
    assert not (tmp_path / "run").exists()


def test_a_split_that_was_given_and_parts_groups_is_said(images: Path, tmp_path: Path) -> None:
    ungrouped = ImageData(root=str(images), image_size=32)
    write_split(split_rows(ungrouped.catalogue, ungrouped.split), tmp_path / "splits.csv")
    table = tmp_path / "t.csv"
    rows = [f"{images}/class{label}/{number:03}.png,class{label},visit" for label in range(3) for number in range(20)]
    table.write_text("path,label,group\n" + "\n".join(rows))
    data = ImageData(table=str(table), image_size=32, splits=str(tmp_path / "splits.csv"))
    assert data.describe().endswith("; --data.splits divides 1 group of the source, such as 'visit'")


def test_groups_too_few_to_share_out_are_said(
    images: Path, tmp_path: Path, tiny_fit: Callable, refusal: Callable
) -> None:
    table = write(images, tmp_path / "t.csv", "group")
    rows = [row.rpartition(";")[0] for row in table.read_text(encoding="utf-8-sig").splitlines()[1:]]
    table.write_text("path;label;group\n" + "\n".join(f"{row};{int(i % 20 > 9)}" for i, row in enumerate(rows)))
    line = refusal(*tiny_fit(tmp_path / "run", "--data.table", table))
    assert "no image is left for validation" in line
    assert "60 images make 2 groups, and each group stays in one part" in line
