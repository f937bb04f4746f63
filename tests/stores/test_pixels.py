import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kth_lightning.data.catalogue import Catalogue
from kth_lightning.data.prepare import prepare
from kth_lightning.data.sources.folder import FolderSource
from kth_lightning.errors import InputError
from kth_lightning.stores.pixels import PixelStore, open_pixels, resize

BUILDING = """
import sys
import warnings
from pathlib import Path
from kth_lightning.data.sources.folder import FolderSource
from kth_lightning.stores.pixels import open_pixels
from kth_lightning.data.prepare import prepare
root, cache = map(Path, sys.argv[1:])
catalogue = prepare(FolderSource(root), cache).catalogue
print("ready", flush=True)
sys.stdin.readline()
print(open_pixels(catalogue, 64, "bilinear", cache).pixels.sum())
"""


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    rng = np.random.default_rng(0)
    for name, (width, height) in {"a/1.png": (90, 50), "a/2.jpg": (300, 200), "b/1.png": (32, 32)}.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(tmp_path / "root" / name)
    return prepare(FolderSource(tmp_path / "root"), tmp_path / "cache").catalogue


def stores(cache: Path) -> list[Path]:
    return sorted(file for file in (cache / "pixels").iterdir() if file.suffix != ".lock")


def fetch_all(store: PixelStore) -> torch.Tensor:
    return store.fetch(torch.arange(len(store.pixels)), torch.zeros(len(store.pixels), dtype=torch.int64))


@pytest.mark.parametrize(
    ("interpolation", "filter_"), [("bilinear", Image.Resampling.BILINEAR), ("nearest", Image.Resampling.NEAREST)]
)
def test_rows_are_the_images_resized(catalogue: Catalogue, interpolation: str, filter_: int, tmp_path: Path) -> None:
    store = open_pixels(catalogue, 160, interpolation, tmp_path / "cache")
    for row, image in zip(store.pixels, catalogue.images, strict=True):
        with Image.open(catalogue.root / image.path) as image:
            np.testing.assert_array_equal(row, np.asarray(image.convert("RGB").resize((160, 160), filter_)))


def test_fetching_copies_the_asked_rows_in_their_order(catalogue: Catalogue, tmp_path: Path) -> None:
    store = open_pixels(catalogue, 40, "bicubic", tmp_path / "cache")
    fetched = store.fetch(torch.tensor([2, 0, 2]), torch.tensor([0, 5, 1]))
    assert fetched.dtype == torch.uint8
    np.testing.assert_array_equal(fetched.numpy(), store.pixels[[2, 0, 2]])
    before = store.pixels.copy()
    fetched.zero_()
    np.testing.assert_array_equal(store.pixels, before)


def test_a_store_is_built_once_and_others_for_another_size_interpolation_or_images(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = open_pixels(catalogue, 40, "bilinear", cache)
    (built,) = stores(cache)
    for image in catalogue.images:  # what is opened again needs no image
        catalogue.root.joinpath(image.path).rename(catalogue.root / image.path.replace("/", "/moved-"))
    np.testing.assert_array_equal(open_pixels(catalogue, 40, "bilinear", cache).pixels, first.pixels)
    for image in catalogue.images:
        catalogue.root.joinpath(image.path.replace("/", "/moved-")).rename(catalogue.root / image.path)
    open_pixels(catalogue, 41, "bilinear", cache)
    open_pixels(catalogue, 40, "nearest", cache)
    open_pixels(Catalogue(catalogue.root, catalogue.images[::-1]), 40, "bilinear", cache)
    assert len(stores(cache)) == 4
    assert built in stores(cache)


def test_two_processes_at_once_build_one_store(catalogue: Catalogue, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", BUILDING, str(catalogue.root), str(tmp_path / "cache")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(argv, text=True, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60) for process in processes]
    assert len({out for out, _ in answers}) == 1
    assert answers[0][0].strip() == str(open_pixels(catalogue, 64, "bilinear", tmp_path / "cache").pixels.sum())
    assert sum("resizing images" in err for _, err in answers) == 1
    assert len(stores(tmp_path / "cache")) == 1


def test_what_a_killed_process_left_does_no_harm(catalogue: Catalogue, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    whole = open_pixels(catalogue, 40, "bilinear", cache).pixels.copy()
    (file,) = stores(cache)
    file.rename(file.with_suffix(".part"))
    file.with_suffix(".part").write_bytes(b"half")
    np.testing.assert_array_equal(open_pixels(catalogue, 40, "bilinear", cache).pixels, whole)
    assert stores(cache) == [file]


@pytest.mark.parametrize("left", [0, 60, 1000, -1])
def test_a_store_that_was_cut_short_is_built_again_with_a_warning(
    catalogue: Catalogue, tmp_path: Path, left: int
) -> None:
    cache = tmp_path / "cache"
    whole = open_pixels(catalogue, 40, "bilinear", cache).pixels.copy()
    (file,) = stores(cache)
    os.truncate(file, left if left >= 0 else file.stat().st_size + left)
    with pytest.warns(UserWarning, match=r"pixel store .* is damaged and built again"):
        np.testing.assert_array_equal(open_pixels(catalogue, 40, "bilinear", cache).pixels, whole)


@pytest.mark.parametrize("position", [150, 3000, -30])
def test_a_store_with_a_wrong_byte_is_built_again_with_a_warning(
    catalogue: Catalogue, tmp_path: Path, position: int
) -> None:
    cache = tmp_path / "cache"
    whole = open_pixels(catalogue, 40, "bilinear", cache).pixels.copy()
    (file,) = stores(cache)
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)
    with pytest.warns(UserWarning, match=r"pixel store .* is damaged and built again"):
        np.testing.assert_array_equal(open_pixels(catalogue, 40, "bilinear", cache).pixels, whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_pixels(catalogue, 40, "bilinear", cache)


def test_a_store_that_nothing_has_touched_is_not_read_to_be_opened(catalogue: Catalogue, tmp_path: Path) -> None:
    cache = tmp_path / "not" / "there"
    whole = open_pixels(catalogue, 40, "bilinear", cache).pixels.copy()
    (file,) = stores(cache)
    written = file.stat().st_mtime_ns
    content = bytearray(file.read_bytes())
    content[150] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(written, written))
    assert (open_pixels(catalogue, 40, "bilinear", cache).pixels != whole).sum() == 1


def test_a_store_that_was_copied_is_summed_up_and_used(catalogue: Catalogue, tmp_path: Path) -> None:
    open_pixels(catalogue, 40, "bilinear", tmp_path / "cache")
    (file,) = stores(tmp_path / "cache")
    os.utime(file)
    content = file.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_pixels(catalogue, 40, "bilinear", tmp_path / "cache")
    assert file.read_bytes() == content


@pytest.mark.parametrize("content", [None, b"no image any more"])
def test_an_image_that_is_gone_is_named(catalogue: Catalogue, tmp_path: Path, content: bytes | None) -> None:
    file = catalogue.root / "a/2.jpg"
    file.unlink()
    if content:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"a/2\.jpg was read before and cannot be any more .* repeat the command"):
        open_pixels(catalogue, 40, "bilinear", tmp_path / "cache")
    assert stores(tmp_path / "cache") == []


def test_resizing_keeps_no_aspect_ratio() -> None:
    wide = Image.new("RGB", (100, 10))
    wide.paste((200, 0, 0), (50, 0, 100, 10))
    assert (resize(wide, 20, "nearest")[:, :, 0] == np.repeat([0, 200], 10)).all()
