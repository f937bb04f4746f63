import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kth_lightning.data.catalogue import Catalogue, ImageRecord
from kth_lightning.data.date_taken import parse_taken
from kth_lightning.data.groups import group_images
from kth_lightning.data.module import ImageData
from kth_lightning.data.split import Split
from kth_lightning.data.split_summary import describe_split
from kth_lightning.errors import InputError

RNG = np.random.default_rng(0)


def record(path: str, taken: str = "", group: str = "") -> ImageRecord:
    label = path.split("/")[0]
    return ImageRecord(path, label, "", 64, 64, f"{hash(path) % 16**8:064x}", 0, group=group, taken=taken)


def catalogue(*paths: str) -> Catalogue:
    images = [record(path) for path in paths]
    return Catalogue(Path("/data"), tuple(ImageRecord(**_with(image, number)) for number, image in enumerate(images)))


def _with(image: ImageRecord, number: int) -> dict:
    return {name: getattr(image, name) for name in ImageRecord.__slots__} | {"duplicates": number}


def groups(found: Catalogue) -> list[str]:
    return [image.group for image in found.images]


PATHS = ("cat/north/a.jpg", "cat/south/b.jpg", "dog/north/c.jpg", "dog/south/d.jpg")


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        ("parent:1", ["north", "south", "north", "south"]),  # one place, whatever the class
        ("regex:north|south", ["north", "south", "north", "south"]),
        (r"regex:/(\w)\w+/(\w)", ["n/a", "s/b", "n/c", "s/d"]),
        ("regex:north", ["north", "", "north", ""]),
        (r"regex:dog/(north)?|(cam)?", ["", "", "north/", ""]),
    ],
)
def test_groups_come_from_paths(group_by: str, expected: list[str]) -> None:
    found, remarks = group_images(catalogue(*PATHS), group_by, ignored=False)
    assert groups(found) == expected
    assert len(remarks) == 1 + ("" in expected)


@pytest.mark.parametrize(
    ("group_by", "said"),
    [
        ("regex:north|south", "makes 2 groups of 2 images"),
        (r"regex:(a|b|c|d)\.", "makes 4 groups of 1 image"),
        ("regex:(?:cat|dog)/(north/)?", "makes 1 group of 2 images"),
        ("regex:cat/north|[sn]o", "makes 3 groups of 1 to 2 images"),
    ],
)
def test_what_groups_were_made_is_said_before_any_work(group_by: str, said: str) -> None:
    _, remarks = group_images(catalogue(*PATHS), group_by, ignored=False)
    assert remarks[0] == f"--data.group_by {group_by} {said}"


def test_groups_of_paths_that_look_alike_are_refused() -> None:
    with pytest.raises(InputError, match=r"--data.group_by parent:1: the groups 'North' .* and 'north' .* look alike"):
        group_images(catalogue(*PATHS, "dog/North/e.jpg"), "parent:1", ignored=False)


def test_images_without_a_group_are_counted_in_a_sentence() -> None:
    _, (_, remark) = group_images(catalogue(*PATHS), "regex:north", ignored=False)
    assert remark == "2 of 4 images have no group, such as cat/south/b.jpg; each is a group of its own"


def test_a_burst_is_what_follows_within_seconds_in_a_folder() -> None:
    times = {"cat/a/1.jpg": 0, "cat/a/2.jpg": 60, "dog/a/3.jpg": 119, "cat/a/4.jpg": 180, "cat/b/5.jpg": 30,
             "cat/a/6.jpg": None}  # fmt: skip
    images = []
    for number, (path, second) in enumerate(times.items()):
        taken = "" if second is None else parse_taken(f"2024:02:29 23:{50 + second // 60}:{second % 60:02d}"[:19])
        images.append(ImageRecord(**_with(record(path, taken), number)))
    found, (_, remark) = group_images(Catalogue(Path("/"), tuple(images)), "burst:60", ignored=False)
    one, two, three, four, five, none = groups(found)
    assert one == two == three != five
    assert four not in (three, "")
    assert none == ""
    assert "1 of 6 images have no group" in remark


@pytest.mark.parametrize("text", ["0000:00:00 00:00:00", "", "yesterday", "2024:13:01 00:00:00", "    :  :     :  :  "])
def test_a_broken_date_is_none(text: str) -> None:
    assert parse_taken(text) == ""


@pytest.mark.parametrize(
    ("group_by", "said"),
    [
        ("folder", "give parent:N"),
        ("parent:0", "give parent:N"),
        ("parent:x", "give parent:N"),
        ("burst:-1", "give parent:N"),
        ("burst:inf", "give parent:N"),
        ("regex:(", "no regular expression"),
        ("parent:9", "no image gets a group"),
        ("burst:60", "no image has an EXIF date"),
        ("parent:2", "each class is a group of its own"),
    ],
)
def test_what_makes_no_groups_is_refused_in_one_sentence(group_by: str, said: str) -> None:
    with pytest.raises(InputError, match=r"--data\.group_by") as refused:
        group_images(catalogue(*PATHS), group_by, ignored=False)
    assert said in str(refused.value)


def test_groups_of_the_source_are_kept_and_not_made_again() -> None:
    named = Catalogue(Path("/"), tuple(record(path, group="a") for path in PATHS))
    assert groups(group_images(named, None, ignored=False)[0]) == ["a"] * 4
    assert groups(group_images(named, None, ignored=True)[0]) == [""] * 4
    with pytest.raises(InputError, match="has groups already"):
        group_images(named, "parent:1", ignored=False)


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw two classes at nine places in bursts of two images, one with a broken date and one with none."""
    root = tmp_path_factory.mktemp("sites")
    for number in range(72):
        file = root / ("cat", "dog")[number % 2] / f"site{number % 9}" / f"{number:02d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        minute, second = divmod(number, 60)
        taken = f"2024:05:01 10:{minute:02d}:{second:02d}" if number else "0000:00:00 00:00:00"
        exif.get_ifd(0x8769)[0x9003] = taken
        image = Image.fromarray(RNG.integers(0, 255, (48, 48, 3), dtype=np.uint8))
        image.save(file, exif=exif if number != 1 else b"")
    return root


@pytest.mark.parametrize("group_by", ["parent:1", "burst:20"])
def test_no_group_crosses_a_split_or_a_fold(sites: Path, group_by: str) -> None:
    tested: list[int] = []
    for fold in range(3):
        data = ImageData(root=str(sites), class_level=1, group_by=group_by, num_folds=3, fold=fold, val_size=0.2)
        parts: dict[str, set[str]] = {}
        for image, part in zip(data.catalogue.images, data.split.parts, strict=True):
            if image.group:
                parts.setdefault(image.group, set()).add(part)
        assert len(parts) > 5
        assert all(len(found) == 1 for found in parts.values())
        tested += data.split.indices("test").tolist()
    assert sorted(tested) == list(range(72))


def test_broken_dates_are_rows_of_the_audit_and_lose_no_image(sites: Path) -> None:
    data = ImageData(root=str(sites), class_level=1, group_by="burst:20")
    with io.StringIO((data.prepared.folder / "audit.csv").read_text(encoding="utf-8-sig")) as stream:
        dates = [row for row in csv.DictReader(stream) if row["reason"].startswith("EXIF date that is none")]
    assert [Path(row["path"]).name for row in dates] == ["00.jpg"]
    assert data.prepared.left_out["left_out"] == 0
    assert any("2 of 72 images have no group" in remark for remark in data.prepared.remarks)
    assert "--data.group_by burst:20 makes " in data.prepared.summary  # which `prepare` prints


def test_ignored_groups_are_parted_as_a_random_split_does(sites: Path) -> None:
    data = ImageData(root=str(sites), class_level=1, group_by="parent:1", ignore_groups=True, split_seed=1)
    parts: dict[str, set[str]] = {}
    for image, part in zip(data.catalogue.images, data.split.parts, strict=True):
        parts.setdefault(image.path.split("/")[1], set()).add(part)
    assert any(len(found) > 1 for found in parts.values())


def test_what_groups_keep_from_being_even_is_said() -> None:
    images = [
        record(f"{'cat' if number < 20 else 'dog'}/{number}.jpg", group=f"place {number // 5}") for number in range(40)
    ]
    grouped = Catalogue(Path("/"), tuple(ImageRecord(**_with(image, n)) for n, image in enumerate(images)))
    uneven = Split((*["train"] * 15, *["test"] * 5, *["train"] * 10, *["val"] * 5, *["test"] * 5))
    said = describe_split(grouped, uneven)
    assert "groups stay whole, 2 of 2 classes are uneven, cat the most: 15 training images, where 12.5" in said
    free = replace(grouped, images=tuple(replace(image, group="") for image in grouped.images))
    assert "groups stay whole" not in describe_split(free, uneven)


def test_one_test_group_is_said_to_give_no_interval() -> None:
    images = [
        record(f"{'cat' if number % 2 else 'dog'}/{number}.jpg", group=f"place {number // 4}") for number in range(16)
    ]
    grouped = Catalogue(Path("/"), tuple(ImageRecord(**_with(image, n)) for n, image in enumerate(images)))
    one, two = (
        Split((*["train"] * 8, *["val"] * 4, *["test"] * 4)),
        Split((*["train"] * 4, *["val"] * 4, *["test"] * 8)),
    )
    assert "; 1 test group: its accuracy has no interval for further groups; give more" in describe_split(grouped, one)
    assert "test group" not in describe_split(grouped, two)
    free = replace(grouped, images=tuple(replace(image, group="") for image in grouped.images))
    assert "test group" not in describe_split(free, one)


def test_a_group_in_two_parts_and_an_unknown_part_are_refused_in_one_sentence(
    sites: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    rows = [[str(file), file.parts[-3], "train", file.parent.name] for file in sorted(sites.rglob("*.jpg"))]
    rows[0][2] = "test"
    table = tmp_path / "table.csv"
    for split, said in (("test", "has several splits: "), ("tst2", "write train, val or test")):
        rows[0][2] = split
        table.write_text("\n".join(["path,label,split,group", *(",".join(row) for row in rows)]))
        assert said in refusal("fit", "--model", "BenchmarkCNN", "--data.table", table, "--run_dir", tmp_path / "run")


def test_empty_cells_of_a_group_column_are_counted(sites: Path, tmp_path: Path) -> None:
    rows = [f"{file},{file.parts[-3]},{file.parent.name if number else ''}" for number, file in
            enumerate(sorted(sites.rglob("*.jpg")))]  # fmt: skip
    (tmp_path / "table.csv").write_text("\n".join(["path,label,group", *rows]))
    data = ImageData(table=str(tmp_path / "table.csv"))
    assert any(remark.startswith("1 of 72 images have no group") for remark in data.prepared.remarks)


def test_a_burst_that_lies_in_several_class_folders_is_one_group() -> None:
    images = [
        replace(record(f"train/{label}/{number}.jpg", f"2024-05-01T10:{number:02d}:00"), label=label)
        for number in range(4)
        for label in ("cat", "dog")
    ]
    relabelled = [replace(images[0], label="dog"), *images[1:]]
    for given in (images, relabelled):
        found, _ = group_images(Catalogue(Path("/"), tuple(given)), "burst:30", ignored=False)
        assert len({*groups(found)}) == 4
        assert groups(found)[::2] == groups(found)[1::2]


def test_images_directly_in_their_class_folder_have_no_group_beside_others_in_folders_of_sites() -> None:
    paths = ("cat/1.jpg", "cat/2.jpg", "cat/cat/3.jpg", "cat/north/4.jpg", "dog/5.jpg", "dog/north/6.jpg")
    found, (_, remark) = group_images(catalogue(*paths), "parent:1", ignored=False)
    assert groups(found) == ["", "", "cat", "north", "", "north"]
    assert remark == "3 of 6 images have no group, such as cat/1.jpg; each is a group of its own"
    images = tuple(replace(image, label="dog") if image.path == "cat/2.jpg" else image for image in found.images)
    bare = replace(found, images=tuple(replace(image, group="") for image in images))
    assert groups(group_images(bare, "parent:1", ignored=False)[0])[1] == ""
