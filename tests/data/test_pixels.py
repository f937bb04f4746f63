import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kth_lightning.data import pixels as pixels_module
from kth_lightning.data.catalogue import Catalogue
from kth_lightning.data.pixels import open_pixels
from kth_lightning.data.prepare import prepare
from kth_lightning.data.sources.folder import FolderSource
from kth_lightning.data.square import Square
from kth_lightning.errors import InputError

BUILDING = """
import sys
import warnings
from pathlib import Path
import torch
from kth_lightning.data.sources.folder import FolderSource
from kth_lightning.data.pixels import open_pixels
from kth_lightning.data.prepare import prepare
from kth_lightning.data.square import Square
from kth_lightning.io import progress
progress.LOG_SECONDS = 0
root, cache = map(Path, sys.argv[1:])
catalogue = prepare(FolderSource(root), cache).catalogue
print("ready", flush=True)
sys.stdin.readline()
print(open_pixels(catalogue, Square(64), cache).fetch(torch.arange(3)).sum().item())
"""


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    rng = np.random.default_rng(0)
    for name, (width, height) in {"a/1.png": (90, 50), "a/2.jpg": (300, 200), "b/1.png": (32, 32)}.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(tmp_path / "root" / name)
    return prepare(FolderSource(tmp_path / "root"), tmp_path / "cache").catalogue


def files(cache: Path) -> list[Path]:
    return sorted(file for file in (cache / "pixels").rglob("*") if file.is_file() and file.suffix != ".lock")


def pixels(catalogue: Catalogue, size: int, interpolation: str, cache: Path) -> np.ndarray:
    return open_pixels(catalogue, Square(size, interpolation), cache).fetch(torch.arange(len(catalogue.images))).numpy()


@pytest.mark.parametrize(
    ("interpolation", "filter_"), [("bilinear", Image.Resampling.BILINEAR), ("nearest", Image.Resampling.NEAREST)]
)
def test_rows_are_the_images_resized(catalogue: Catalogue, interpolation: str, filter_: int, tmp_path: Path) -> None:
    rows = pixels(catalogue, 160, interpolation, tmp_path / "cache")
    for row, image in zip(rows, catalogue.images, strict=True):
        with Image.open(catalogue.root / image.path) as image:
            np.testing.assert_array_equal(row, np.asarray(image.convert("RGB").resize((160, 160), filter_)))


def test_an_image_is_decoded_once_for_all_catalogues_that_have_it(catalogue: Catalogue, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    fewer = Catalogue(catalogue.root, catalogue.images[1:])
    first = pixels(fewer, 40, "bilinear", cache)
    for image in fewer.images:  # what is opened again needs no image
        catalogue.root.joinpath(image.path).unlink()
    np.testing.assert_array_equal(pixels(catalogue, 40, "bilinear", cache)[1:], first)
    with pytest.raises(InputError, match="can no longer be read"):
        open_pixels(catalogue, Square(41), cache)
    with pytest.raises(InputError, match="can no longer be read"):
        open_pixels(catalogue, Square(40, "nearest"), cache)


def test_decoding_that_was_interrupted_goes_on(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels_module, "_FILE_BYTES", 1)
    cache, last = tmp_path / "cache", catalogue.file(2)
    last.rename(last.with_suffix(".away"))
    with pytest.raises(InputError, match="can no longer be read"):
        open_pixels(catalogue, Square(40), cache)
    assert len(files(cache)) == 2
    last.with_suffix(".away").rename(last)
    before = {file: file.stat().st_mtime_ns for file in files(cache)}
    open_pixels(catalogue, Square(40), cache)
    assert len(files(cache)) == 3
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())


@pytest.mark.slow
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
    assert answers[0][0].strip() == str(pixels(catalogue, 64, "bilinear", tmp_path / "cache").sum())
    assert sum("resizing images" in err for _, err in answers) == 1
    assert len(files(tmp_path / "cache")) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_what_is_damaged_is_decoded_again_with_a_warning(catalogue: Catalogue, tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "not" / "there"
    whole = pixels(catalogue, 40, "bilinear", cache)
    (file,) = files(cache)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content if damage == "flipped" else content[:1000])
    with pytest.warns(UserWarning, match="its rows are computed again"):
        np.testing.assert_array_equal(pixels(catalogue, 40, "bilinear", cache), whole)


@pytest.mark.parametrize("content", [None, b"no image any more"])
def test_an_image_that_is_gone_is_named(catalogue: Catalogue, tmp_path: Path, content: bytes | None) -> None:
    file = catalogue.root / "a/2.jpg"
    file.unlink()
    if content:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"a/2\.jpg can no longer be read .* repeat the command"):
        open_pixels(catalogue, Square(40), tmp_path / "cache")
    assert files(tmp_path / "cache") == []
