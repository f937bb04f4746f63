import csv
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kth_lightning.data.catalogue import Catalogue, ImageRecord
from kth_lightning.data.split import make_split
from kth_lightning.data.split_table import (
    ChangedImagesError,
    Difference,
    compare_images,
    match_split,
    misplaced,
    split_rows,
)
from kth_lightning.errors import InputError
from kth_lightning.io.split_file import SplitRow, read_split, split_hashes, write_split

Table = tuple[Catalogue, list[SplitRow], Path]


def catalogue_of(*images: tuple[str, str, int]) -> Catalogue:
    """Make a catalogue of (path, label, content), in the order of the paths."""
    records = [
        ImageRecord(path, label, "", 32, 32, f"{content:064x}", position)
        for position, (path, label, content) in enumerate(sorted(images))
    ]
    return Catalogue(Path("root"), tuple(records))


TWENTY = [
    (f"{label}/{number}.jpg", label, 100 * position + number)
    for position, label in enumerate(("cat", "dog"))
    for number in range(10)
]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    catalogue = catalogue_of(*TWENTY)
    write_split(split_rows(catalogue, make_split(catalogue, 4, 4, 0)), tmp_path / "splits.csv")
    return catalogue, read_split(tmp_path / "splits.csv"), tmp_path / "splits.csv"


def difference(rows: Sequence[SplitRow], *images: tuple[str, str, int]) -> Difference:
    return compare_images(catalogue_of(*images), rows)[1]


def test_a_split_comes_back_as_it_was_under_any_paths_and_in_any_order(table: Table) -> None:
    catalogue, rows, _ = table
    assert match_split(catalogue, rows, "") == (catalogue, make_split(catalogue, 4, 4, 0))
    names = [f"z{number}" for number in range(20)]
    random.Random(0).shuffle(names)
    renamed = catalogue_of(*((name, label, content) for name, (_, label, content) in zip(names, TWENTY, strict=True)))
    matched, split = match_split(renamed, rows, "")
    assert split_rows(matched, split) == rows
    for index, row in enumerate(rows):
        assert matched.images[index].sha256 == row.sha256
        assert matched.file(index) == Path("root") / names[[path for path, _, _ in sorted(TWENTY)].index(row.path)]


def test_names_that_were_swapped_lead_to_the_right_files(table: Table) -> None:
    _, rows, _ = table
    swapped = [(path, label, {0: 1, 1: 0}.get(content, content)) for path, label, content in TWENTY]
    matched, _ = match_split(catalogue_of(*swapped), rows, "")
    places = {row.path: index for index, row in enumerate(rows)}
    assert matched.file(places["cat/0.jpg"]) == Path("root/cat/1.jpg")
    assert matched.file(places["cat/1.jpg"]) == Path("root/cat/0.jpg")


def test_what_has_become_of_the_images_is_counted(table: Table) -> None:
    _, rows, _ = table
    assert not difference(rows, *TWENTY)
    assert difference(rows, *TWENTY, ("cat/x.jpg", "cat", 77)).new == ["cat/x.jpg"]
    assert difference(rows, *TWENTY[1:]).gone == ["cat/0.jpg"]
    found = difference(rows, ("dog/x.jpg", "dog", 0), *TWENTY[1:])
    assert (found.relabelled, found.new, found.gone, found.renamed) == (["cat/0.jpg"], [], [], {})
    found = difference(rows, ("cat/0.jpg", "cat", 77), *TWENTY[1:])
    assert (found.changed, found.new, found.gone) == (["cat/0.jpg"], [], [])
    found = difference(rows, ("cat/x.jpg", "cat", 77), *TWENTY[2:])
    assert (found.new, found.gone) == (["cat/x.jpg"], ["cat/0.jpg", "cat/1.jpg"])


def test_a_renamed_class_is_known_as_such_and_a_merged_one_is_not(table: Table) -> None:
    _, rows, _ = table
    renamed = [
        (path.replace("cat", "Katze"), label.replace("cat", "Katze"), content) for path, label, content in TWENTY
    ]
    found = difference(rows, *renamed)
    assert (found.renamed, len(found.relabelled), found.new, found.gone) == ({"cat": "Katze"}, 10, [], [])
    assert str(found) == "10 are relabelled (class 'cat' is called 'Katze' now)"
    merged = [(path.replace("cat", "dog/c"), "dog", content) for path, label, content in TWENTY]
    found = difference(rows, *merged)
    assert (found.renamed, len(found.relabelled)) == ({}, 10)


def test_copies_of_an_image_count_one_by_one() -> None:
    twins = [("cat/a.jpg", "cat", 1), ("cat/b.jpg", "cat", 1), ("dog/a.jpg", "dog", 1), ("dog/b.jpg", "dog", 2)]
    rows = [SplitRow(*image, part="train") for image in [(p, label, f"{c:064x}") for p, label, c in twins]]  # type: ignore[call-arg]
    assert not difference(rows, *twins)
    assert difference(rows, *twins[1:]).gone == ["cat/a.jpg"]
    assert difference(rows, *twins, ("cat/c.jpg", "cat", 1)).new == ["cat/c.jpg"]
    found = difference(rows, *twins[1:], ("dog/c.jpg", "dog", 1))
    assert (found.relabelled, found.new, found.gone) == (["cat/a.jpg"], [], [])


def test_new_images_are_left_out_where_told_to_and_nothing_else_is(table: Table) -> None:
    _, rows, _ = table
    grown = catalogue_of(*TWENTY, ("cat/00.jpg", "cat", 77))
    with pytest.raises(ChangedImagesError, match=r"^X: made for other images: 1 is new \('cat/00\.jpg'\)$"):
        match_split(grown, rows, "X")
    matched, split = match_split(grown, rows, "X", ignore_new=True)
    assert split_rows(matched, split) == rows
    with pytest.raises(ChangedImagesError, match=r": 1 is gone \('cat/0\.jpg'\)$"):
        match_split(catalogue_of(*TWENTY[1:], ("cat/00.jpg", "cat", 77)), rows, "X", ignore_new=True)


def test_images_that_lie_in_the_folder_of_another_part_are_found(table: Table) -> None:
    catalogue, _, _ = table
    split = make_split(catalogue, 4, 4, 0)

    def prescribe(moves: dict[int, str]) -> Catalogue:
        named = [replace(image, subset=split.parts[place]) for place, image in enumerate(catalogue.images)]  # type: ignore[arg-type]
        for place, subset in moves.items():
            named[place] = replace(named[place], subset=subset)  # type: ignore[arg-type]
        return Catalogue(catalogue.root, tuple(named))

    places = {part: int(split.indices(part)[0]) for part in ("train", "val", "test")}  # type: ignore[arg-type]
    assert misplaced(catalogue, split) == misplaced(prescribe({}), split) == []
    for part, other in (("train", "test"), ("test", "train"), ("val", "train"), ("train", "val")):
        assert misplaced(prescribe({places[part]: other}), split) == [catalogue.images[places[part]].path]


def test_hashes_know_content_classes_and_parts_and_no_paths_or_order(table: Table) -> None:
    _, rows, _ = table
    before = split_hashes(rows)
    assert split_hashes([row._replace(path=f"elsewhere/{row.path}") for row in rows[::-1]]) == before
    changed = split_hashes([rows[0]._replace(label="emu"), *rows[1:]])
    assert changed["data"] != before["data"]
    train = next(number for number, row in enumerate(rows) if row.part == "train")
    moved = split_hashes([row._replace(part="val") if number == train else row for number, row in enumerate(rows)])
    assert (moved["data"], moved["test"]) == (before["data"], before["test"])
    assert moved["split"] != before["split"]


def test_a_split_without_a_class_in_training_is_refused(table: Table) -> None:
    catalogue, rows, _ = table
    moved = [row._replace(part="test") if (row.label, row.part) == ("cat", "train") else row for row in rows]
    with pytest.raises(InputError, match=r"class 'cat' has no image left for training"):
        match_split(catalogue, moved, "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a table of path, label, sha256, part"),
        (b"path,part\nc00/0.jpg,train\n", "not a table of path, label, sha256, part"),
        (b"path,label,sha256,part\nc00/0.jpg,c00,0,holdout\n", r"unknown part .holdout.; parts are"),
        (b"path,label,sha256,part\nc00/0.jpg,c00,0,train\nc00/1.jpg\n", "not a table of path, label, sha256, part"),
        (b"path,label,sha256,part\na,c00,0,val\nb,c00,0,val\nb,c00,0,val\n", "'b' is listed more than once"),
        (b"\xff\xfe\x00", "not a table"),
    ],
)
def test_a_file_that_is_no_split_is_refused(table: Table, content: bytes, message: str) -> None:
    table[2].write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_split(table[2])


def test_a_missing_split_is_reported_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--data\.splits .*none\.csv: there is no such file"):
        read_split(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"--data\.splits .*: not a table"):
        read_split(tmp_path)


def test_a_table_that_a_spreadsheet_saved_is_read(table: Table) -> None:
    _, rows, file = table
    with file.open("w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream).writerows([SplitRow._fields, *rows])
    assert read_split(file) == rows
