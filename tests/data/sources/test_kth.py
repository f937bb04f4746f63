import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from PIL import Image

from kth_lightning.data.prepare import prepare
from kth_lightning.data.sources.kth import KthSource
from kth_lightning.errors import InputError

COUNTS = {
    "bear": 105, "cougar": 100, "cow": 97, "coyote": 100, "deer": 100, "elephant": 99, "giraffe": 84, "goat": 99,
    "gorilla": 83, "horse": 100, "kangaroo": 89, "leopard": 100, "lion": 98, "panda": 97, "penguin": 80, "sheep": 68,
    "skunk": 62, "tiger": 100, "zebra": 77,
}  # fmt: skip
DUPLICATES = [
    {"giraffe 3_16", "giraffe 3_78"}, {"giraffe 3_4", "giraffe 3_84"}, {"giraffe 3_32", "giraffe 3_81"},
    {"sheep 8_1", "sheep 8_65"}, {"gorilla 4_14", "gorilla 4_63"}, {"gorilla 4_3", "gorilla 4_23"},
    {"skunk 9_14", "skunk 9_27", "skunk 9_41"}, {"skunk 9_17", "skunk 9_50"}, {"cow 2_4", "cow 2_35"},
    {"panda 6_35", "panda 6_94"}, {"panda 6_4", "panda 6_56"}, {"panda 6_3", "panda 6_48"},
    {"panda 6_16", "panda 6_65"}, {"tiger 5715", "tiger 5741"}, {"zebra 10_14", "zebra 10_70"},
]  # fmt: skip


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    top = tmp_path / "made" / "animal_database"
    for index, name in enumerate(["bear", "penquin"]):
        for part in ("original", "segment"):
            (top / name / part).mkdir(parents=True)
        Image.new("RGB", (20, 30), (index, 0, 0)).save(top / name / "original" / "1_1.jpg")
        Image.new("L", (20, 30)).save(top / name / "segment" / "1_1.png")
    (top / "bear/original/.DS_Store").write_bytes(b"x")
    Image.new("L", (20, 30)).save(top / "bear/segment/1_2.png")
    return _pack(top, tmp_path / "animals.tar.gz")


def _pack(top: Path, file: Path) -> Path:
    with tarfile.open(file, "w:gz") as tar:
        tar.add(top, top.name)
    return file


def _entries(cache_dir: Path) -> list[str]:
    return sorted(entry.name for entry in (cache_dir / "archives").iterdir() if entry.suffix != ".lock")


def test_images_masks_and_problems_are_listed(archive: Path, tmp_path: Path) -> None:
    listing = KthSource(str(archive)).list(tmp_path / "cache")
    assert listing.mask_background == "highest"
    found = [
        (one.file.relative_to(listing.root).as_posix(), one.label, one.mask and one.mask.name)
        for one in listing.candidates
    ]
    assert found == [("bear/original/1_1.jpg", "bear", "1_1.png"), ("penquin/original/1_1.jpg", "penguin", "1_1.png")]
    assert [(file.name, reason.partition(":")[0]) for file, reason in listing.problems] == [
        (".DS_Store", "no image"),
        ("1_2.png", "mask without an image"),
    ]
    assert listing.root.is_absolute()
    assert "No licence" in listing.notes[0]


def test_an_archive_is_unpacked_once_even_by_many_at_a_time(archive: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        roots = {one.root for one in pool.map(lambda _: KthSource(str(archive)).list(tmp_path / "cache"), range(4))}
    assert len(roots) == 1
    marked = roots.pop() / "bear/original/1_1.jpg"
    before = marked.stat().st_mtime_ns
    KthSource(str(archive)).list(tmp_path / "cache")
    assert marked.stat().st_mtime_ns == before
    assert len(_entries(tmp_path / "cache")) == 1


def test_a_changed_archive_is_unpacked_anew(archive: Path, tmp_path: Path) -> None:
    KthSource(str(archive)).list(tmp_path / "cache")
    Image.new("RGB", (20, 30)).save(tmp_path / "made/animal_database/bear/original/1_2.jpg")
    _pack(tmp_path / "made/animal_database", archive)
    assert len(KthSource(str(archive)).list(tmp_path / "cache").candidates) == 3


def test_a_url_is_downloaded_unpacked_and_not_asked_again(archive: Path, tmp_path: Path) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(archive.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        source = KthSource(f"http://127.0.0.1:{http.server_port}/{archive.name}")
        assert len(source.list(tmp_path / "cache").candidates) == 2
        http.shutdown()
    assert len(source.list(tmp_path / "cache").candidates) == 2
    assert len(_entries(tmp_path / "cache")) == 1


@pytest.mark.parametrize("kind", ["cut", "other", "missing", "folder"])
def test_a_bad_archive_is_one_sentence_and_leaves_nothing(archive: Path, tmp_path: Path, kind: str) -> None:
    sentences = {"cut": "incomplete", "other": "not KTH-ANIMALS", "missing": "no file", "folder": "is a folder"}
    if kind == "cut":
        archive.write_bytes(archive.read_bytes()[:-300])
    elif kind == "other":
        (tmp_path / "made/animal_database").rename(tmp_path / "made/other")
        _pack(tmp_path / "made/other", archive)
    else:
        archive.unlink()
        if kind == "folder":
            archive.mkdir()
    with pytest.raises(InputError, match=rf"--data\.archive: .*{sentences[kind]}"):
        KthSource(str(archive)).list(tmp_path / "cache")
    assert not (tmp_path / "cache").exists() or _entries(tmp_path / "cache") == []


@pytest.mark.slow
@pytest.mark.skipif("KTH_ANIMALS_ARCHIVE" not in os.environ, reason="KTH_ANIMALS_ARCHIVE names no archive")
def test_the_real_archive_has_its_known_classes_and_duplicates(tmp_path: Path) -> None:
    prepared = prepare(KthSource(os.environ["KTH_ANIMALS_ARCHIVE"]), tmp_path)
    images = prepared.catalogue.images
    assert {name: sum(one.label == name for one in images) for name in prepared.catalogue.class_names} == COUNTS
    assert all(one.mask for one in images)
    groups: dict[int, set[str]] = {}
    for one in images:
        groups.setdefault(one.duplicates, set()).add(f"{one.label} {Path(one.path).stem}")
    found = [group for group in groups.values() if len(group) > 1]
    assert sorted(map(sorted, found)) == sorted(map(sorted, DUPLICATES))
    assert "1738 of 1739 files usable in 19 classes" in prepared.summary
