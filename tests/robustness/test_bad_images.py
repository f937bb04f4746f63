import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from corpus import FORMATS, encoded, noise, save, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kth_lightning.cli.main import main
from kth_lightning.data.images import ReadOptions, UnreadableImage, decode
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.predict.prediction_file import PredictionFile

Prepared = Callable[..., tuple[str, dict[str, str], list[str]]]
GOOD = [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(3)]


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def header(content: bytes) -> bytes:
    return content[:20]


def zeros(content: bytes) -> bytes:
    return bytes(len(content))


def headless(content: bytes) -> bytes:
    return bytes(20) + content[20:]


def html(content: bytes) -> bytes:
    return b"<!DOCTYPE html><title>404 Not Found</title>"


def empty(content: bytes) -> bytes:
    return b""


DAMAGES = (half, header, zeros, headless, html, empty)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_damaged_image_is_left_out_with_its_reason_and_the_others_stay(
    prepared: Prepared, root: Path, suffix: str, damage: Callable[[bytes], bytes]
) -> None:
    name = f"bad.{suffix.replace('gif', 'png')}"
    (root / "cat" / name).write_bytes(damage(encoded(suffix)))
    summary, audit, usable = prepared(root)
    assert usable == GOOD
    assert audit.keys() == {f"cat/{name}"}
    assert audit[f"cat/{name}"].startswith(("unreadable: ", "truncated: "))
    assert "6 of 7 files usable in 2 classes" in summary


@pytest.mark.parametrize("content", FORMATS)
def test_an_image_is_read_by_its_content_whatever_its_suffix_says(prepared: Prepared, root: Path, content: str) -> None:
    wrong = "cat/x.bmp" if content == "jpg" else "cat/x.jpg"
    (root / wrong).write_bytes(encoded(content))
    _, audit, usable = prepared(root)
    assert usable == sorted([*GOOD, wrong])
    assert audit == {}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_flipped_bits_never_stop_the_others_from_being_used(prepared: Prepared, root: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    whole = np.frombuffer(encoded(suffix), dtype=np.uint8)
    names = [f"cat/flipped{number}.{suffix}" for number in range(30)]
    for name in names:
        damaged = whole.copy()
        damaged[rng.integers(0, len(whole), 12)] ^= np.uint8(1) << rng.integers(0, 8, 12, dtype=np.uint8)
        (root / name).write_bytes(damaged.tobytes())
    _, audit, usable = prepared(root)
    assert {*usable} | {path for path, reason in audit.items() if "duplicate" not in reason} == {*GOOD, *names}
    assert {*GOOD} <= {*usable}


def test_a_jpeg_whose_end_was_never_downloaded_is_truncated(prepared: Prepared, root: Path) -> None:
    content = encoded("jpg")
    (root / "cat/bad.jpg").write_bytes(half(content) + bytes(len(content)))
    _, audit, usable = prepared(root)
    assert usable == GOOD
    assert audit["cat/bad.jpg"].startswith("truncated: ")


def test_a_whole_jpeg_with_zeros_behind_it_is_used(prepared: Prepared, root: Path) -> None:
    (root / "cat/padded.jpg").write_bytes(encoded("jpg") + bytes(4096))
    assert prepared(root)[2] == sorted([*GOOD, "cat/padded.jpg"])


def test_a_decompression_bomb_is_too_large(prepared: Prepared, root: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(root / "cat/bomb.png")
    assert prepared(root)[1]["cat/bomb.png"].startswith("too large: ")


@pytest.mark.parametrize("size", [(1, 1), (15, 400), (400, 15)])
def test_an_image_of_a_few_pixels_is_too_small(prepared: Prepared, root: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size).save(root / "cat/small.png")
    assert prepared(root)[1] == {"cat/small.png": f"too small: {size[0]}x{size[1]} pixels, a side needs 16"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_grey_value_that_is_no_number_leaves_the_others_as_they_are(tmp_path: Path, value: float) -> None:
    values = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    values[0, 0] = value
    Image.fromarray(values).save(tmp_path / "a.tif")
    with (tmp_path / "a.tif").open("rb") as stream:
        image = np.asarray(decode(stream, options=ReadOptions((0, 1))).image)
    assert image[-1, -1].tolist() == [255] * 3
    assert abs(int(image[10, 0, 0]) - 128) < 2


@pytest.mark.parametrize("kind", ["pipe", "device", "dangling link", "link in a circle", "folder"])
def test_what_is_no_file_is_never_waited_for(prepared: Prepared, root: Path, kind: str) -> None:
    position = root / "cat/odd.png"
    if kind == "pipe":
        os.mkfifo(position)
    elif kind == "folder":
        position.mkdir()
    else:
        position.symlink_to({"device": "/dev/zero", "dangling link": "nowhere", "link in a circle": "odd.png"}[kind])
    _, audit, usable = prepared(root)
    assert usable == GOOD
    assert audit.keys() == (set() if kind == "folder" else {"cat/odd.png"})
    assert all(reason.startswith("unreadable: ") for reason in audit.values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pipe", "device", "zeros", "vanished"])
def test_predict_gives_a_bad_image_a_row_with_its_reason(tiny_run: RunFolder, tmp_path: Path, kind: str) -> None:
    good, bad = save(tmp_path / "in/good.png", 1), tmp_path / "in/bad.png"
    if kind == "pipe":
        os.mkfifo(bad)
    elif kind == "device":
        bad.symlink_to("/dev/zero")
    elif kind == "zeros":
        bad.write_bytes(bytes(100))
    else:
        bad.symlink_to(tmp_path / "gone.png")
    kept = snapshot(tmp_path)
    output = tmp_path / "out.csv"
    main(["predict", str(good.parent), "--ckpt_path", str(tiny_run.best_checkpoint), "--output", str(output)])
    rows = output.read_text(encoding="utf-8").splitlines()
    assert rows[1].startswith(f"{bad},,")
    assert "unreadable: " in rows[1]
    assert rows[2].startswith(f"{good},class")
    output.unlink()
    assert snapshot(tmp_path) == kept


def test_an_image_that_vanishes_while_others_are_read_gets_a_row(
    tiny_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        save(tmp_path / f"in/{number}.png", number)
    resume = PredictionFile.resume

    def vanish(self: PredictionFile, images: list[Path]) -> int:
        (tmp_path / "in/1.png").unlink()
        (tmp_path / "in/1.png").symlink_to("nowhere")
        return resume(self, images)

    monkeypatch.setattr(PredictionFile, "resume", vanish)
    output = tmp_path / "out.csv"
    main(["predict", str(tmp_path / "in"), "--ckpt_path", str(tiny_run.best_checkpoint), "--output", str(output)])
    rows = output.read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[-1] for row in rows[1:]] == ["", "unreadable: No such file or directory", ""]


MAGICS = [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBP", b"BM", b"II*\0", b"GIF89a"]


def outcome(content: bytes, at_least: int | None = None) -> str:
    """Decode, and give the image's mode or why there is none; anything else comes out as an exception."""
    try:
        return decode(io.BytesIO(content), at_least)[0].mode
    except UnreadableImage as error:
        return str(error)


REASONS = ("RGB", "unreadable: ", "truncated: ", "too large: ", "multi-band TIFF: ")


def is_known(said: str) -> bool:
    return said.isprintable() and said.startswith(REASONS)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    suffix=st.sampled_from(sorted(FORMATS)),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=12),
    cut=st.integers(0, 10_000),
    at_least=st.sampled_from([None, 32]),
)
def test_any_damage_gives_an_image_or_a_reason(
    suffix: str, changes: list[tuple[int, int]], cut: int, at_least: int | None
) -> None:
    content = bytearray(encoded(suffix))
    for position, value in changes:
        content[position % len(content)] = value
    assert is_known(outcome(bytes(content[: len(content) - cut % len(content)]), at_least))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(magic=st.sampled_from(MAGICS), rest=st.binary(max_size=600))
def test_any_bytes_give_an_image_or_a_reason(magic: bytes, rest: bytes) -> None:
    assert is_known(outcome(magic + rest))


def test_the_decoder_reads_what_the_fuzzing_starts_from() -> None:
    assert all(decode(io.BytesIO(encoded(suffix)))[0].size == noise(99).size for suffix in FORMATS)
