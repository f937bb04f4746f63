import contextlib
import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from kth_lightning.data.images import ReadOptions, UnreadableImage, decode, read_rgb

RED = (200, 40, 30)


def _close(image: Image.Image, colour: tuple[int, int, int], at: tuple[int, int] = (5, 5), by: int = 4) -> bool:
    pixel = image.getpixel(at)
    return image.mode == "RGB" and all(abs(a - b) <= by for a, b in zip(pixel, colour, strict=True))


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".webp", ".bmp", ".tif", ".TIFF"])
def test_every_format_gives_its_colour(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    Image.new("RGB", (32, 20), RED).save(file)
    image = read_rgb(file)
    assert image.size == (32, 20)
    assert _close(image, RED)


@pytest.mark.parametrize(("mode", "colour", "expected"), [("L", 77, (77,) * 3), ("1", 1, (255,) * 3)])
def test_grey_and_one_bit_become_rgb(tmp_path: Path, mode: str, colour: int, expected: tuple[int, int, int]) -> None:
    Image.new(mode, (20, 20), colour).save(tmp_path / "a.png")
    assert _close(read_rgb(tmp_path / "a.png"), expected, by=0)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_is_not_inverted(tmp_path: Path, suffix: str) -> None:
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(tmp_path / f"a{suffix}")
    assert _close(read_rgb(tmp_path / f"a{suffix}"), (255, 0, 0))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_shows_white(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (20, 20), (0,) * len(mode)).save(tmp_path / "a.png")
    assert _close(read_rgb(tmp_path / "a.png"), (255, 255, 255), by=0)


def test_a_transparent_palette_entry_shows_white_and_the_others_their_colour(tmp_path: Path) -> None:
    image = Image.new("P", (20, 20), 0)
    image.putpalette([*RED, 10, 20, 30])
    image.paste(1, (10, 0, 20, 20))
    image.save(tmp_path / "a.png", transparency=bytes([255, 0]))
    assert _close(read_rgb(tmp_path / "a.png"), RED, by=0)
    assert _close(read_rgb(tmp_path / "a.png"), (255, 255, 255), at=(15, 5), by=0)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.repeat(np.array([[0, 257 * 50, 257 * 200, 65535]], dtype=np.uint16), 4, axis=0)
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    assert np.asarray(read_rgb(tmp_path / f"a{suffix}"))[0, :, 1].tolist() == [0, 50, 200, 255]


def test_float_grey_spans_black_to_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 0.5, 1.0]] * 3, dtype=np.float32)).save(tmp_path / "a.tif")
    for options in (ReadOptions((0, 1)), ReadOptions(own_range=True)):
        assert np.asarray(read_rgb(tmp_path / "a.tif", options=options))[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(UnreadableImage, match=r"^unknown range: "):
        read_rgb(tmp_path / "a.tif")


def test_lab_and_ycbcr_tiff_become_rgb(tmp_path: Path) -> None:
    red = Image.new("RGB", (20, 20), RED)
    lab = ImageCms.profileToProfile(
        red, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    lab.save(tmp_path / "lab.tif")
    red.convert("YCbCr").save(tmp_path / "ycbcr.tif", compression="tiff_lzw")  # Pillow 11 cannot read its own without
    assert _close(read_rgb(tmp_path / "lab.tif"), RED)
    assert _close(read_rgb(tmp_path / "ycbcr.tif"), RED)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exif_rotation_is_applied_to_pixels_and_size(tmp_path: Path, suffix: str) -> None:
    image = Image.new("RGB", (96, 64), RED)
    image.paste((0, 0, 255), (0, 0, 48, 64))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: left becomes top
    image.save(tmp_path / f"a{suffix}", exif=exif)
    with (tmp_path / f"a{suffix}").open("rb") as stream:
        upright, size, _, _ = decode(stream)
    assert upright.size == size == (64, 96)
    assert _close(upright, (0, 0, 255), at=(32, 10), by=12)
    assert _close(upright, RED, at=(32, 90), by=12)


def test_the_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (20, 20), RED), Image.new("RGB", (20, 20), "blue")
    first.save(tmp_path / "a.webp", save_all=True, append_images=[second], lossless=True)
    assert _close(read_rgb(tmp_path / "a.webp"), RED)


def test_reduced_jpeg_keeps_twice_the_asked_side_and_reports_the_full_size() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (1601, 1200), RED).save(stream, "JPEG")
    image, size, _, _ = decode(stream, at_least=100)
    assert size == (1601, 1200)
    assert 200 <= min(image.size) < 400


def test_a_cut_file_is_truncated_and_a_wrong_one_unreadable(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    for name in ("a.jpg", "a.png"):
        noise.save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UnreadableImage, match=r"^truncated: "):
            read_rgb(tmp_path / name)
    (tmp_path / "zeros.jpg").write_bytes(bytes(5000))
    with pytest.raises(UnreadableImage, match=r"^unreadable: its bytes are in no image format"):
        read_rgb(tmp_path / "zeros.jpg")
    with pytest.raises(UnreadableImage, match=r"^unreadable: No such file"):
        read_rgb(tmp_path / "missing.jpg")


def test_a_decompression_bomb_is_too_large(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(UnreadableImage, match=r"^too large: 20000x20000 pixels"):
        read_rgb(tmp_path / "bomb.png")


@pytest.mark.filterwarnings("ignore")  # pytest undoes the filters that the module sets
def test_damaged_files_never_raise_anything_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8))
    for suffix in ("jpg", "png", "webp", "bmp", "tif", "gif"):
        noise.save(tmp_path / f"a.{suffix}")
        whole = np.frombuffer((tmp_path / f"a.{suffix}").read_bytes(), dtype=np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            damaged[rng.integers(0, len(whole), 8)] = rng.integers(0, 255, 8)
            with contextlib.suppress(UnreadableImage):
                assert decode(io.BytesIO(damaged.tobytes()))[0].mode == "RGB"


def test_threads_read_alike_and_no_warning_reaches_people(tmp_path: Path) -> None:
    Image.new("1", (10_000, 9_000)).save(tmp_path / "large.png")  # Pillow warns from 89 million pixels on
    code = f"""
from pathlib import Path
from kth_lightning.data.images import read_rgb
print(read_rgb(Path({str(tmp_path / "large.png")!r})).size)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("(10000, 9000)\n", "")
    Image.new("RGB", (300, 200), RED).save(tmp_path / "a.jpg")
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(read_rgb, [tmp_path / "a.jpg"] * 20))
    assert len({image.tobytes() for image in images}) == 1
