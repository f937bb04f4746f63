"""Boxes of images: each is an example of its own, from the table to the pixels, and those of one file stay together."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kth_lightning import Box, Candidate, Crop, ImageData, Listing
from kth_lightning.data.images import UnreadableImage, read_rgb
from kth_lightning.data.prepare import Prepared, prepare
from kth_lightning.data.sources.table import TableSource
from kth_lightning.errors import InputError

BOX = Box(0.25, 0.1, 0.5, 0.3)
LEFT, RIGHT = "0 0 .5 1", "[0.5, 0, 0.5, 1]"


def photo(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Draw smooth colours, no two places alike."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def written(folder: Path, rows: list[tuple[str, ...]], names: tuple[str, ...] = ("path", "label", "box")) -> Path:
    with (folder / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([names, *rows])
    return folder / "table.csv"


def prepared(folder: Path, rows: list[tuple[str, ...]]) -> Prepared:
    return prepare(TableSource(str(written(folder, rows))), folder / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a", "b", "c")):
        photo((120, 80), seed).save(tmp_path / f"{name}.png")
    return tmp_path


def test_a_box_is_cut_out_of_the_upright_image(tmp_path: Path) -> None:
    image, exif = photo((200, 100)), Image.Exif()
    image.save(tmp_path / "a.png")
    assert read_rgb(Crop(tmp_path / "a.png", BOX)).tobytes() == image.crop((50, 10, 150, 40)).tobytes()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    upright = image.transpose(Image.Transpose.ROTATE_270)
    assert read_rgb(Crop(tmp_path / "turned.png", BOX)).tobytes() == upright.crop((25, 20, 75, 80)).tobytes()


@pytest.mark.parametrize(("size", "orientation", "by"), [((1600, 1200), 1, 2), ((2048, 512), 6, 4)])
def test_a_jpeg_is_decoded_no_smaller_than_its_box_needs(
    tmp_path: Path, size: tuple[int, int], orientation: int, by: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo(size).save(tmp_path / "a.jpg", exif=exif, quality=95)
    box = Box(0.3, 0.2, 0.5, 0.125)  # 800 x 150 pixels, or, turned, 256 x 256
    whole, crop = read_rgb(tmp_path / "a.jpg", 32), read_rgb(Crop(tmp_path / "a.jpg", box), 32)
    assert max(whole.size) == size[0] // 8
    full = read_rgb(Crop(tmp_path / "a.jpg", box))
    assert crop.size == (full.width // by, full.height // by)
    difference = np.asarray(crop.resize((64, 32)), int) - np.asarray(full.resize((64, 32)), int)
    assert np.abs(difference).mean() < 4


def test_the_table_gives_an_example_for_each_box(folder: Path) -> None:
    catalogue = prepared(
        folder, [("b.png", "dog", LEFT), ("a.png", "cat", RIGHT), ("a.png", "dog", LEFT), ("c.png", "cat", "")]
    ).catalogue
    found = [(image.path, image.label, image.box_text, image.width, image.height) for image in catalogue.images]
    assert found == [
        ("a.png", "dog", "0 0 0.5 1", 60, 80),
        ("a.png", "cat", "0.5 0 0.5 1", 60, 80),
        ("b.png", "dog", "0 0 0.5 1", 60, 80),
        ("c.png", "cat", "", 120, 80),
    ]
    assert len({image.content for image in catalogue.images}) == len(set(catalogue.content_keys)) == 4
    assert catalogue.images[3].content == catalogue.images[3].sha256
    assert len(set(catalogue.inseparable)) == 3
    data = ImageData(table=str(folder / "table.csv"), image_size=40, cache_dir=str(folder / "cache"))
    data.prepare_data()
    data.setup("fit")
    half = Image.open(folder / "a.png").crop((60, 0, 120, 80)).resize((40, 40), Image.Resampling.BILINEAR)
    assert (data.pixels.fetch(torch.tensor([1]))[0].numpy() == np.asarray(half)).all()


def test_parquet_has_boxes_as_lists_or_text(folder: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    boxes = [[0.1, 0.2, 0.3, 0.6], None, [0.5, 0.0, 0.4, 1.0]]
    expected = ["0.1 0.2 0.3 0.6", "", "0.5 0 0.4 1"]
    for kind in (pyarrow.list_(pyarrow.float32()), pyarrow.list_(pyarrow.float64()), pyarrow.string()):
        cells = boxes if kind != pyarrow.string() else expected
        table = pyarrow.table({"path": ["a.png", "b.png", "c.png"], "label": ["x", "y", "y"]})
        parquet.write_table(table.append_column("box", pyarrow.array(cells, kind)), folder / "t.parquet")
        images = prepare(TableSource(str(folder / "t.parquet")), folder / "cache").catalogue.images
        assert [image.box_text for image in images] == expected


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ("0 0 .5", "box that is none: '0 0 .5'; write x, y, width and height as shares"),
        ("a b c d", "box that is none"),
        ("nan 0 1 1", "box that is none"),
        ("0.2 0.2 0 0.5", "box of no area: 0.2 0.2 0 0.5"),
        ("0.2 0.2 -.1 .5", "box of no area"),
        ("0.6 0 0.5 1", "box outside the image: 0.6 0 0.5 1; write x, y, width and height as shares"),
        ("30 10 60 40", "box outside the image"),
        ("0.5 0.5 .05 .05", "too small: 6x4 pixels"),
    ],
)
def test_a_box_that_cannot_be_used_is_a_row_of_the_audit(folder: Path, box: str, reason: str) -> None:
    found = prepared(folder, [("a.png", "cat", LEFT), ("b.png", "dog", ""), ("c.png", "dog", box)])
    assert len(found.catalogue.images) == 2
    with (found.folder / "audit.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert row["path"].startswith("c.png")
    assert row["reason"].startswith(reason)
    assert "1 of 3 files left out: 1 box" in " ".join(found.remarks) or "too small" in row["reason"]


def test_a_box_that_reaches_out_by_rounding_is_cut_off() -> None:
    assert not Box(0.5001, -0.0004, 0.5, 1.0005).fault
    assert Box(0.5001, -0.0004, 0.5, 1.0005).pixels((100, 60)) == (50, 0, 100, 60)


def test_one_box_with_two_labels_is_refused(folder: Path) -> None:
    rows = [("a.png", "cat", LEFT), ("a.png", "dog", "0.0, 0.0, 0.5, 1.0"), ("b.png", "dog", "")]
    with pytest.raises(InputError, match=r"a.png \[0 0 0.5 1\] twice, with the label cat and dog"):
        prepared(folder, rows)


def test_boxes_of_one_file_or_its_copies_are_never_parted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(24):
        image = Image.fromarray(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8))
        image.save(tmp_path / f"{number}.png")
        image.save(tmp_path / f"copy-{number}.png")
        rows += [(f"{number}.png", "ab"[number % 2], f"{x} 0 .3 1") for x in (0, 0.3)]
        rows += [(f"copy-{number}.png", "ab"[number % 2], ".6 0 .3 1")]
    table = str(written(tmp_path, rows))
    for fold in range(4):
        data = ImageData(table=table, cache_dir=str(tmp_path / "cache"), num_folds=4, fold=fold, val_size=0.2)
        assert any(line.startswith("24 files have several boxes, and no im") for line in data.prepared.remarks)
        parts = defaultdict(set)
        for image, part in zip(data.catalogue.images, data.split.parts, strict=True):
            parts[image.path.removeprefix("copy-")].add(part)
        assert len(parts) == 24
        assert all(len(found) == 1 for found in parts.values())


def test_tables_of_data_without_boxes_have_no_column_for_them(folder: Path) -> None:
    found = prepared(folder, [("a.png", "cat", ""), ("b.png", "dog", "")])
    header = (found.folder / "catalogue.csv").read_text().splitlines()[0]
    assert header == "path,label,mask,width,height,sha256,duplicates,subset,group,low,high,taken"


def test_a_source_of_ones_own_lists_boxes(folder: Path) -> None:
    class Boxes:
        def list(self, cache_dir: Path) -> Listing:
            boxes = [Candidate(folder / "a.png", "left", box=Box(0, 0, 0.5, 1))]
            return Listing(folder, [*boxes, Candidate(folder / "b.png", "none")])

    assert [image.name for image in prepare(Boxes(), folder / "cache").catalogue.images] == [
        "a.png [0 0 0.5 1]",
        "b.png",
    ]
    with pytest.raises(UnreadableImage, match="box outside the image"):
        read_rgb(Crop(folder / "a.png", Box(0, 0, 2, 1)))
