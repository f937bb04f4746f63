"""Images deeper than 8 bits: the same numbers in any file give the same image."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from kth_lightning.data.images import ReadOptions, UnreadableImage, decode

Values = npt.NDArray[np.generic]
TWELVE_BITS = ReadOptions((0, 4095))


def png(values: Values) -> bytes:
    """Write [H, W, 1..4] uint16 as grey, grey and alpha, RGB or RGBA of 16 bits, which Pillow cannot."""
    height, width, channels = values.shape

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    magic = b"\x89PNG\r\n\x1a\n"
    return magic + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(
    values: Values, order: str = "<", packed: bool = False, planar: bool = False, alpha: int = 2, white: bool = False
) -> bytes:
    """Write [H, W, C] of any dtype; `alpha` 1 is premultiplied, `white` says that 0 is white."""
    height, width, channels = values.shape
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    planes = np.moveaxis(values, -1, 0) if planar else values[None]
    strips = [plane.astype(values.dtype.newbyteorder(order)).tobytes() for plane in planes]
    strips = [zlib.compress(strip) for strip in strips] if packed else strips
    out = bytearray(b"II*\0" if order == "<" else b"MM\0*") + bytes(4)
    starts = []
    for strip in strips:
        starts.append(len(out))
        out += strip
    tags = [(256, [width]), (257, [height]), (258, [8 * values.itemsize] * channels), (259, [8 if packed else 1])]
    tags += [(262, [2 if channels > 2 else 0 if white else 1]), (273, starts), (277, [channels]), (278, [height])]
    tags += [(279, [len(strip) for strip in strips]), (284, [2 if planar else 1])]
    tags += [(338, [alpha])] if channels in (2, 4) else []
    tags += [(339, [kind] * channels)]
    entries = b""
    for tag, numbers in tags:
        data = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(data) > 4:
            out += bytes(len(out) % 2)
            data, place = struct.pack(order + "I", len(out)), data
            out += place
        entries += struct.pack(order + "HHI", tag, 4, len(numbers)) + data
    out += bytes(len(out) % 2)
    out[4:8] = struct.pack(order + "I", len(out))
    return bytes(out + struct.pack(order + "H", len(tags)) + entries + bytes(4))


def netpbm(values: Values) -> bytes:
    height, width, channels = values.shape
    return b"P%d\n%d %d\n65535\n" % (5 if channels == 1 else 6, width, height) + values.astype(">u2").tobytes()


def random(channels: int, most: int = 4096) -> Values:
    return np.random.default_rng(0).integers(0, most, (20, 24, channels), dtype=np.uint16)


FILES: dict[str, tuple[int, Callable[[Values], bytes]]] = {
    "PNG grey": (1, png),
    "PNG grey, alpha": (2, png),
    "PNG RGB": (3, png),
    "PNG RGBA": (4, png),
    "PGM": (1, netpbm),
    "PPM": (3, netpbm),
    "int16": (1, lambda values: tiff(values.astype(np.int16))),
    "int32": (1, lambda values: tiff(values.astype(np.int32))),
    "uint32": (1, lambda values: tiff(values.astype(np.uint32))),
    "float": (1, lambda values: tiff(values.astype(np.float32))),
}
for order in "<>":
    for packed in (False, True):
        for planar in (False, True):
            for channels in (1, 3, 4):
                name = f"TIFF {order} {'packed ' * packed}{'planar ' * planar}{channels}"

                def write(values: Values, order: str = order, packed: bool = packed, planar: bool = planar) -> bytes:
                    return tiff(values, order, packed, planar)

                if not (packed and planar and channels > 1):
                    FILES[name] = (channels, write)


@pytest.mark.parametrize(("channels", "write"), FILES.values(), ids=FILES)
def test_the_same_numbers_give_the_same_image_in_every_file(channels: int, write: Callable[[Values], bytes]) -> None:
    values = random(channels)
    if channels in (2, 4):
        values[..., -1] = np.random.default_rng(1).choice([0, 65535], values.shape[:2])
    colours = values[..., : 3 if channels > 2 else 1]
    expected = np.rint(colours.astype(float) / 4095 * 255)
    if channels in (2, 4):
        expected = np.where(values[..., -1:] > 0, expected, 255)
    image, size, bounds, _ = decode(io.BytesIO(write(values)), options=TWELVE_BITS)
    assert size == (24, 20)
    assert bounds == (colours.min(), colours.max())
    assert np.abs(np.asarray(image).astype(float) - expected).max() <= (1 if channels == 4 else 0)


def test_a_premultiplied_colour_is_what_it_was_before() -> None:
    values = np.full((20, 24, 4), 32768, np.uint16)
    values[..., :3] = 16384  # half of the full value, half transparent
    image, _, bounds, _ = decode(io.BytesIO(tiff(values, alpha=1)))
    assert bounds == pytest.approx((32767, 32767), abs=2)
    assert image.getpixel((3, 3)) == pytest.approx((191, 191, 191), abs=1)  # over white


def test_low_values_are_bright_where_the_file_says_so() -> None:
    values = np.repeat(np.arange(4096, dtype=np.uint16)[None, ::100, None], 20, axis=0)
    dark, bright = (np.asarray(decode(io.BytesIO(tiff(values, white=white))).image) for white in (False, True))
    assert (dark + bright == 255).all()


def test_what_lies_outside_the_range_is_black_or_white() -> None:
    values = np.array([[[-2000], [-1024], [3071], [30000]]] * 20, dtype=np.int16)
    image = decode(io.BytesIO(tiff(values)), options=ReadOptions((-1024, 3071))).image
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((20, 24, 6), np.uint16), "multi-band TIFF: 6 bands of unsigned values of 16 bits; save it with"),
        (np.zeros((20, 24, 2), np.uint16), "multi-band TIFF: 2 bands of unsigned values of 16 bits"),
        (np.zeros((20, 24, 3), np.float32), "floating-point TIFF: 3 bands of floating-point values of 32 bits"),
        (np.zeros((20, 24, 1), np.float64), "floating-point TIFF: 1 band of floating-point values of 64 bits"),
        (np.zeros((20, 24, 3), np.int16), "unsupported TIFF: 3 bands of signed values of 16 bits"),
        (np.zeros((20, 24, 1), np.int8), "unsupported TIFF: 1 band of signed values of 8 bits"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_tiff_that_is_not_read_says_why_and_what_to_do(values: Values, reason: str, packed: bool) -> None:
    for planar in (False, True):
        with pytest.raises(UnreadableImage) as refused:
            decode(io.BytesIO(tiff(values, packed=packed, planar=planar)))
        assert str(refused.value).startswith(reason)
        assert str(refused.value).endswith("; save it with 8 or 16 bits, as grey or RGB")


def test_packed_planes_of_16_bits_are_not_cut_to_8() -> None:
    with pytest.raises(UnreadableImage, match=r"^unsupported TIFF: .* as grey or RGB, its bands interleaved$"):
        decode(io.BytesIO(tiff(random(3), packed=True, planar=True)))


def test_a_range_that_no_file_states_is_asked_for(tmp_path: Path) -> None:
    for dtype in (np.int16, np.int32, np.float32):
        with pytest.raises(UnreadableImage, match=r"^unknown range: .* give --value_range"):
            decode(io.BytesIO(tiff(random(1).astype(dtype))))
    assert decode(io.BytesIO(png(np.full((20, 24, 1), 257 * 90, np.uint16)))).image.getpixel((0, 0)) == (90, 90, 90)


def test_eight_bits_have_no_range(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (20, 20), (10, 20, 30)).save(stream, "PNG")
    image, _, values, _ = decode(stream, options=TWELVE_BITS)
    assert values is None
    assert image.getpixel((0, 0)) == (10, 20, 30)
