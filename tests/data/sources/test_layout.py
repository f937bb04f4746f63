"""Folders as people have them: `tree` writes one image for each name, "*" standing for two classes."""

import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from kth_lightning.data.sources.folder import FolderSource
from kth_lightning.data.sources.source import Listing
from kth_lightning.errors import InputError

JPEG = b"\xff\xd8\xff\xe0"  # as much of one as a listing looks at
NFC, NFD = unicodedata.normalize("NFC", "école"), unicodedata.normalize("NFD", "école")


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    def write(*names: str) -> Path:
        for name in names:
            for one in [name.replace("*", label) for label in ("cat", "dog")]:
                file = tmp_path / "root" / one
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(JPEG if file.suffix != ".xml" else b"<xml/>")
        return tmp_path / "root"

    return write


def listed(root: Path, class_level: int | None = None) -> Listing:
    return FolderSource(root, class_level=class_level).list(root.parent / "cache")


def counted(listing: Listing) -> dict[str, int]:
    """Count the files of each class in each part, as "train cat"."""
    return dict(Counter(f"{one.subset} {one.label}".strip() for one in listing.candidates))


TRAIN_TEST = {"train cat": 1, "train dog": 1, "test cat": 1, "test dog": 1}
TRAIN_VAL = {"train cat": 1, "train dog": 1, "val cat": 1, "val dog": 1}
CLASSES = {"cat": 1, "dog": 1}
LAYOUTS: dict[str, tuple[list[str], dict[str, int], str]] = {
    "other words": (["Training/*/a.jpg", "Testing/*/a.jpg"], TRAIN_TEST, "Testing for testing, Training for training"),
    "dev": (["train/*/a.jpg", "dev/*/a.jpg"], TRAIN_VAL, "dev for validation"),
    "eval is tested": (["train/*/a.jpg", "eval/*/a.jpg"], TRAIN_TEST, "eval for testing"),
    "hold-out": (["train_set/*/a.jpg", "hold-out/*/a.jpg"], TRAIN_TEST, "hold-out for testing"),
    "years": (["train2017/*/a.jpg", "val2017/*/a.jpg"], TRAIN_VAL, "val2017 for validation"),
    "capitals": (["Train/CAT/a.jpg", "Train/b/a.jpg", "Test/b/a.jpg"], {"train CAT": 1, "train b": 1, "test b": 1}, ""),
    "folders twice": (
        ["seg_train/seg_train/*/a.jpg", "seg_test/seg_test/*/a.jpg", "seg_pred/seg_pred/a.jpg"],
        TRAIN_TEST,
        "seg_pred has images but no class folders, so it is not used; predict can classify it later",
    ),
    "one part, twice": (["seg_train/seg_train/*/a.jpg"], {"train cat": 1, "train dog": 1}, "seg_train for training"),
    "a folder around": (["animals/*/a.jpg", "read.xml"], CLASSES, "the classes are the folders in animals"),
    "two folders around": (["a/b/train/*/a.jpg", "a/b/val/*/a.jpg"], TRAIN_VAL, "a/b/val for validation"),
    "images and masks": (
        ["images/train/*/a.jpg", "images/val/*/a.jpg", "masks/train/*/a.jpg", "masks/val/*/a.jpg"],
        TRAIN_VAL,
        "masks was taken for masks and passed over",
    ),
    "images and notes": (["images/*/a.jpg", "xmls/*/a.xml"], CLASSES, "xmls stands beside images and was passed over"),
    "masks beside parts": (
        ["train/*/a.jpg", "val/*/a.jpg", "masks/train/*/a.jpg"], TRAIN_VAL, "masks was taken for masks and passed over"
    ),
    "masks in classes": (["*/images/a.jpg", "*/masks/a.jpg"], CLASSES, "called masks were taken for masks"),
    "masks beside classes": (["*/a.jpg", "masks/a.jpg"], CLASSES, "masks was taken for masks and passed over; give"),
    "masks below classes": (["*/a.jpg", "*/masks/a.jpg", "*/x/gt/a.jpg"], CLASSES, "4 folders called gt, masks were"),
    "masks in one class": (["cat/images/a.jpg", "cat/masks/a.jpg", "dog/a.jpg"], CLASSES, "cat/masks was taken for"),
    "masks in one part": (["train/*/a.jpg", "val/*/a.jpg", "train/masks/a.jpg"], TRAIN_VAL, "train/masks was taken"),
    "notes in a class": (["*/a.jpg", "cat/labels/a.xml"], {"cat": 2, "dog": 1}, ""),
    "notes beside parts": (
        ["train/*/a.jpg", "val/*/a.jpg", "annotations/*/a.xml"], TRAIN_VAL, "annotations has no images and was passed"
    ),
    "unlabelled": (["train/*/a.jpg", "val/*/a.jpg", "test/a.jpg"], TRAIN_VAL, "test has images but no class folders"),
    "unlabelled, deeper": (["train/*/a.jpg", "test/images/a.jpg"], {"train cat": 1, "train dog": 1}, "predict can"),
    "parts in classes": (["*/train/a.jpg", "*/test/a.jpg"], TRAIN_TEST, "its own folders test and train"),
    "one folder in each class": (["*/images/a.jpg"], CLASSES, ""),
    "one date in each class": (["*/2024-05/a.jpg"], CLASSES, "the classes are folders such as cat, dog; the folders"),
    "a number twice": (["*/1/a.jpg", "dog/2/a.jpg"], {"cat": 1, "dog": 2}, "names (1) were not used as classes"),
    "one species everywhere": (["*/fox/a.jpg"], CLASSES, "names (fox) were not used as classes (--data.class_level 2"),
    "images beside folders": (["cat/a.jpg", "*/old/a.jpg", "dog/b/a.jpg"], {"cat": 2, "dog": 2}, "names (old) were"),
    "parts in some classes": (
        ["*/train/a.jpg", "cat/test/a.jpg"], {"train cat": 1, "train dog": 1, "test cat": 1}, "folders test and train"
    ),
    "folders of other names": (["cat/tabby/a.jpg", "cat/lion/a.jpg", "dog/wolf/a.jpg"], {"cat": 2, "dog": 1}, ""),
    "a class called train": (["train/a.jpg", "bus/a.jpg", "car/new/a.jpg"], {"train": 1, "bus": 1, "car": 1}, ""),
    "forms of Unicode": (
        [f"train/{NFC}/a.jpg", "train/dog/a.jpg", f"val/{NFD}/a.jpg"],
        {f"train {NFC}": 1, "train dog": 1, f"val {NFC}": 1},
        "",
    ),
    "letters in both cases": (["a/a.jpg", "A/a.jpg"], {"a": 1, "A": 1}, ""),
}  # fmt: skip


@pytest.mark.parametrize(("names", "expected", "remark"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_is_understood_and_said(
    tree: Callable[..., Path], names: list[str], expected: dict[str, int], remark: str
) -> None:
    listing = listed(tree(*names))
    said = "; ".join(listing.remarks)
    assert (counted(listing), remark in said, bool(said)) == (expected, True, bool(remark))


REFUSED = {
    "years in classes": (["*/2023/a.jpg", "*/2024/a.jpg"], "give --data.class_level 1 if cat is a class, 2 if 2023 is"),
    "sites": (["a/*/a.jpg", "b/*/a.jpg", "c/cat/a.jpg"], "give --data.class_level 1 if a is a class, 2 if cat is"),
    "two sites with one species": (["*/fox/a.jpg", "cat/empty/a.jpg"], "1 if cat is a class, 2 if fox is"),
    "three sites": (
        ["a/*/a.jpg", "b/cat/a.jpg", "c/dog/a.jpg", "c/owl/a.jpg"],
        "since a, b, c contain folders with the",
    ),
    "a class of masks": (
        ["cat/a.jpg", "dog/masks/a.jpg"],
        "dog is an empty class, without any image, but images in masks",
    ),
    "masks alone": (["labels/*/a.jpg"], "has no class folders beside labels, which is taken for masks"),
    "a third folder": (["train/*/a.jpg", "val/*/a.jpg", "extra/*/a.jpg"], "extra lies beside train, which"),
    "images beside a part": (["train/*/a.jpg", "more/cat/a.jpg"], "more lies beside train, which"),
    "spaces": (["cat/a.jpg", "cat /a.jpg"], "'cat' (U+0063 U+0061 U+0074) and 'cat ' (U+0063 U+0061 U+0074 U+0020)"),
    "case": (["train/Cat/a.jpg", "train/dog/a.jpg", "val/cat/a.jpg"], "'Cat' (U+0043 U+0061 U+0074) and 'cat' (U+0063"),
    "forms of Unicode in one part": ([f"{NFC}/a.jpg", f"{NFD}/a.jpg"], "(U+0065 U+0301 U+0063 U+006F U+006C U+0065)"),
    "what is never shown": (["cat/a.jpg", "c\u200bat/a.jpg"], "(U+0063 U+200B U+0061 U+0074)"),
    "a long name": ([f"{'x' * 90}y/a.jpg", f"{'x' * 90}Y/a.jpg"], "(… U+0078 U+0078 U+0078"),
}


@pytest.mark.parametrize(("names", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_can_be_read_in_two_ways_is_refused_with_the_way_out(
    tree: Callable[..., Path], names: list[str], sentence: str
) -> None:
    with pytest.raises(InputError) as refused:
        listed(tree(*names))
    assert str(refused.value).startswith("--data.root: ")
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("names", "class_level", "expected"),
    [
        (["*/2023/a.jpg", "*/2024/a.jpg"], 1, {"cat": 2, "dog": 2}),
        (["a/*/a.jpg", "b/*/a.jpg"], 2, {"cat": 2, "dog": 2}),
        (["train/*/a.jpg", "val/cat/a.jpg", "extra/*/a.jpg"], 2, {"train cat": 2, "train dog": 2, "val cat": 1}),
        (["train/*/a.jpg", "bus/a.jpg"], 1, {"train": 2, "bus": 1}),
        (["mask/a.jpg", "no mask/a.jpg", "no mask/masks/a.jpg"], 1, {"mask": 1, "no mask": 1}),
        (["*/mask/a.jpg", "*/none/a.jpg", "masks/cat/a.jpg"], 2, {"mask": 2, "none": 2}),
    ],
)  # fmt: skip
def test_the_way_out_leads_out(
    tree: Callable[..., Path], names: list[str], class_level: int, expected: dict[str, int]
) -> None:
    assert counted(listed(tree(*names), class_level)) == expected


def test_folders_of_systems_are_no_classes(tree: Callable[..., Path]) -> None:
    names = ["@eaDir/x.jpg", "__MACOSX/cat/x.jpg", "lost+found/x.jpg", "$RECYCLE.BIN/x.jpg", "cat/@eaDir/a.jpg/x.jpg"]
    root = tree("*/a.jpg", *names, "System Volume Information/x.jpg")
    assert counted(listed(root)) == CLASSES
    assert listed(root).remarks == []


def test_a_test_root_may_have_a_folder_around_its_classes(tree: Callable[..., Path]) -> None:
    root = tree("a/*/a.jpg", "seg_test/seg_test/*/a.jpg")
    listing = FolderSource(root / "a", root / "seg_test").list(root.parent / "cache")
    assert counted(listing) == CLASSES | {"test cat": 1, "test dog": 1}


def test_masks_that_have_the_place_of_an_image_are_its_masks(tree: Callable[..., Path]) -> None:
    root = tree("*/images/a.jpg", "*/masks/a.png", "owl/b.jpg", "owl/x/c.jpg", "owl/gt/x/c.png", "masks/owl/b.png")
    listing = listed(root)
    assert {one.file.relative_to(root).as_posix(): one.mask for one in listing.candidates} == {
        "cat/images/a.jpg": root / "cat/masks/a.png",
        "dog/images/a.jpg": root / "dog/masks/a.png",
        "owl/b.jpg": root / "masks/owl/b.png",
        "owl/x/c.jpg": root / "owl/gt/x/c.png",
    }
    assert "4 folders called gt, masks were taken for masks and passed over; 4 images have their mask there" in (
        "; ".join(listing.remarks)
    )


def test_a_class_whose_name_means_masks_is_tested_on_too(tree: Callable[..., Path]) -> None:
    root = tree("own/mask/a.jpg", "own/bare/a.jpg", "web/mask/a.jpg", "web/bare/a.jpg", "web/labels/a.jpg")
    listing = FolderSource(root / "own", root / "web", class_level=1).list(root.parent / "cache")
    assert counted(listing) == {"mask": 1, "bare": 1, "test mask": 1, "test bare": 1}
    assert listing.remarks[0].startswith("mask was taken for a class, as --data.class_level 1 says")
    assert listing.remarks[1].startswith("labels was taken for masks and passed over")


def test_the_cache_may_lie_among_the_classes_but_not_be_their_folder(tree: Callable[..., Path]) -> None:
    root = tree("*/a.jpg", "cache/sample-1/cat/a.jpg")
    assert counted(FolderSource(root).list(root / "cache")) == CLASSES
    with pytest.raises(InputError, match=r"--data\.cache_dir: .* is the folder of the images"):
        FolderSource(root).list(root)
