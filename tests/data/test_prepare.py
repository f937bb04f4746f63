import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from kth_lightning.data.prepare import Prepared, prepare
from kth_lightning.data.sources.folder import FolderSource
from kth_lightning.data.sources.source import Candidate, Listing
from kth_lightning.errors import InputError


def _image(file: Path, seed: int, size: tuple[int, int] = (64, 48)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(file)
    return file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for index, name in enumerate(["cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png"]):
        _image(root / name, index)
    return root


def _prepare(root: Path, test_root: Path | None = None) -> Prepared:
    return prepare(FolderSource(root, test_root), root.parent / "cache")


def _audit(prepared: Prepared) -> dict[str, tuple[str, str, str]]:
    with (prepared.folder / "audit.csv").open(newline="", encoding="utf-8") as stream:
        return {row["path"]: (row["label"], row["reason"], row["of"]) for row in csv.DictReader(stream)}


def test_every_kind_of_bad_file_is_reported_and_left_out(root: Path) -> None:
    whole = (root / "cat/a.png").read_bytes()
    (root / "cat/cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "cat/empty.jpg").write_bytes(b"")
    (root / "cat/zeros.jpg").write_bytes(bytes(100))
    (root / "cat/notes.txt").write_text("x")
    (root / "cat/gone.jpg").symlink_to(root / "nowhere.jpg")
    _image(root / "dog/small.png", 9, (15, 40))
    prepared = _prepare(root)
    assert [one.path for one in prepared.catalogue.images] == ["cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png"]
    reasons = {path: reason for path, (_, reason, _) in _audit(prepared).items()}
    assert {path: reason.partition(":")[0] for path, reason in reasons.items()} == {
        "cat/cut.png": "truncated",
        "cat/empty.jpg": "unreadable",
        "cat/zeros.jpg": "unreadable",
        "cat/gone.jpg": "unreadable",
        "cat/notes.txt": "no image",
        "dog/small.png": "too small",
    }
    assert reasons["cat/empty.jpg"] == "unreadable: the file is empty"
    assert prepared.summary.startswith("4 of 9 files usable in 2 classes\n")
    assert "unreadable: 3 (cat/empty.jpg, cat/gone.jpg, cat/zeros.jpg)" in prepared.summary
    assert "images per class: 2 " in prepared.summary
    assert prepared.summary.endswith(str(prepared.folder))


def test_duplicates_stay_in_the_catalogue_with_their_group(root: Path) -> None:
    (root / "cat/c.png").write_bytes((root / "cat/a.png").read_bytes())
    (root / "dog/c.png").write_bytes((root / "cat/a.png").read_bytes())
    Image.open(root / "dog/a.png").save(root / "dog/near.bmp")
    prepared = _prepare(root)
    assert {one.path: one.duplicates for one in prepared.catalogue.images} == {
        "cat/a.png": 0,
        "cat/b.png": 1,
        "cat/c.png": 0,
        "dog/a.png": 3,
        "dog/b.png": 4,
        "dog/c.png": 0,
        "dog/near.bmp": 3,
    }
    assert _audit(prepared) == {
        "cat/c.png": ("cat", "exact duplicate", "cat/a.png"),
        "dog/c.png": ("dog", "exact duplicate in another class", "cat/a.png"),
        "dog/near.bmp": ("dog", "near duplicate", "dog/a.png"),
    }
    assert "2 groups of 5 images (1 within a class, 1 across classes)" in prepared.summary
    assert prepared.remarks == [
        "warning: 1 image of the same content in different classes, such as cat/a.png and dog/c.png; keep each in one "
        "class"
    ]


def test_raw_data_are_lost_unless_they_are_developed_and_other_files_are_counted(root: Path) -> None:
    for name in ("cat/a.CR2", "cat/lost.CR2", "dog/lost.nef", "dog/film.MP4", "dog/other.mp4", "dog/read me"):
        (root / name).write_bytes(b"no image of a known kind")
    prepared = _prepare(root)
    reasons = {path: reason for path, (_, reason, _) in _audit(prepared).items()}
    assert reasons["cat/a.CR2"] == "no image: the raw data of a.png"
    assert reasons["dog/lost.nef"] == "camera raw: a camera's raw data; develop it to JPEG or TIFF"
    passed_over, lost = prepared.remarks
    assert lost.startswith("warning: 2 of 6 files left out: 2 camera raw; camera raw: develop it to JPEG or TIFF; ")
    assert "cat loses 1 of its 3" in lost
    assert passed_over == "4 other files (2 .mp4, 1 without a suffix, 1 .cr2) passed over"
    (no_image,) = (line for line in prepared.summary.splitlines() if line.startswith("  no image: "))
    assert "develop" not in no_image


def test_the_first_page_of_a_stack_is_used_and_said_but_not_of_a_file_with_smaller_copies(root: Path) -> None:
    pages = [Image.open(root / name) for name in ("cat/a.png", "cat/b.png", "dog/b.png")]
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[254] = 1
    pages[1].encoderinfo = {"tiffinfo": tags}
    pages[0].save(root / "cat/copies.tif", save_all=True, append_images=pages[1:2])
    pages[1].encoderinfo = {}
    pages[2].save(root / "dog/stack.tif", save_all=True, append_images=pages)
    pages[2].save(root / "dog/big.tif", save_all=True, append_images=pages, big_tiff=True)
    prepared = _prepare(root)
    assert "7 of 7 files usable" in prepared.summary
    assert prepared.remarks == ["only the first page is used of 2 files with several pages, such as dog/big.tif"]
    assert "  several pages: 2 (dog/big.tif, dog/stack.tif)" in prepared.summary
    assert next(one for one in prepared.catalogue.images if one.path == "dog/stack.tif").duplicates == 4  # dog/b.png


def test_a_second_call_reads_no_image_and_a_change_reads_them_anew(root: Path) -> None:
    first = _prepare(root)
    before = (first.folder / "catalogue.csv").stat().st_mtime_ns
    second = _prepare(root)
    assert (second.catalogue, second.summary) == (first.catalogue, first.summary)
    assert (second.folder / "catalogue.csv").stat().st_mtime_ns == before
    _image(root / "dog/b.png", 77)
    third = _prepare(root)
    assert third.catalogue.images[3].sha256 != first.catalogue.images[3].sha256
    assert {path.name for path in (root.parent / "cache/catalogues").iterdir() if path.is_dir()} == {
        first.folder.name,
        third.folder.name,
    }


def test_odd_names_survive_and_names_that_are_no_text_are_reported(root: Path) -> None:
    names = ['a b, "c".png', "é 🐈.png", "line\nbreak.png", "carriage\rreturn.png"]
    for index, name in enumerate(names):
        _image(root / "cat" / name, 20 + index)
    bad = os.fsdecode(b"cat/\xff.png")
    (root / bad).write_bytes((root / "cat/a.png").read_bytes())
    prepared = _prepare(root)
    paths = [one.path for one in prepared.catalogue.images]
    assert paths == sorted(["cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png", *(f"cat/{name}" for name in names)])
    assert all(prepared.catalogue.file(index).exists() for index in range(len(paths)))
    assert _audit(prepared)["cat/\\xff.png"][1] == "unreadable: its path is not valid UTF-8, rename it"
    assert _prepare(root).catalogue == prepared.catalogue


def test_images_of_test_root_have_absolute_paths_and_their_subset(root: Path, tmp_path: Path) -> None:
    web = _image(tmp_path / "web/dog/w.png", 50)
    images = _prepare(root, tmp_path / "web").catalogue.images
    assert [one.path for one in images] == sorted(one.path for one in images)
    image = next(one for one in images if one.subset == "test")
    assert image.path == str(web)
    assert (image.width, image.height) == (64, 48)


def test_masks_are_kept_where_they_fit(root: Path, tmp_path: Path) -> None:
    masks = [tmp_path / f"root/masks/{name}.png" for name in ("fits", "larger", "broken")]
    masks[0].parent.mkdir()
    Image.new("L", (64, 48)).save(masks[0])
    Image.new("L", (65, 48)).save(masks[1])
    masks[2].write_bytes(b"no")

    class _Masked:
        def list(self, cache_dir: Path) -> Listing:
            files = [root / "cat/a.png", root / "cat/b.png", root / "dog/a.png", root / "dog/b.png"]
            pairs = zip(files, [*masks, None], strict=True)
            return Listing(root, [Candidate(file, file.parent.name, mask) for file, mask in pairs])

    prepared = prepare(_Masked(), tmp_path / "cache")
    assert [one.mask for one in prepared.catalogue.images] == ["masks/fits.png", "", "", ""]
    assert _audit(prepared)["masks/larger.png"][:2] == ("cat", "mask of another size: 65x48, the image has 64x48")
    assert _audit(prepared)["masks/broken.png"][1].startswith("unreadable mask: ")
    assert [remark.partition(" (")[0] for remark in prepared.remarks] == [
        "warning: 1 mask cannot be read, such as masks/broken.png",
        "warning: 1 mask cannot be used, being of another size than the image, such as masks/larger.png",
    ]
    assert prepared.remarks[1] in prepared.summary


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (["cat", "dog"], "has no usable image .the first: cat/a.png: unreadable"),
        (["dog"], "the class 'dog' has no usable image .dog/a.png: unreadable"),
    ],
)
def test_classes_without_a_usable_image_are_named(root: Path, broken: list[str], sentence: str) -> None:
    for name in broken:
        for file in (root / name).iterdir():
            file.write_bytes(b"no")
    with pytest.raises(InputError, match=sentence):
        _prepare(root)
    assert not [path for path in (root.parent / "cache/catalogues").iterdir() if path.is_dir()]


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    _image(tmp_path / "root/cat/a.png", 1)
    with pytest.raises(InputError, match=r"one class only \(cat\); a classifier needs at least two"):
        _prepare(tmp_path / "root")


def test_a_cache_that_cannot_be_written_names_its_flag(root: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in its place")
    with pytest.raises(InputError, match=r"cannot use .*cache.*--data\.cache_dir"):
        _prepare(root)


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_made(root: Path, tmp_path: Path) -> None:
    code = f"""
import resource
from pathlib import Path
from kth_lightning.data.sources.folder import FolderSource
from kth_lightning.data.prepare import prepare
from kth_lightning.errors import InputError
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    prepare(FolderSource(Path({str(root)!r})), Path({str(tmp_path / "cache")!r}))
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "(File too large); free space on the disk" in done.stdout, done.stderr
    assert not [path for path in (tmp_path / "cache/catalogues").iterdir() if path.is_dir()]
