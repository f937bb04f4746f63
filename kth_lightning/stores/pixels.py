"""The pixel store: every image decoded and resized once, kept as one memory-mapped file."""

import hashlib
import os
import time
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from kth_lightning.data.catalogue import Catalogue
from kth_lightning.data.images import UnreadableImage, read_rgb
from kth_lightning.errors import InputError
from kth_lightning.io.bounded_map import bounded_map

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
MIN_SIZE, MAX_SIZE = 32, 4096
"""Least and largest side in pixels of the images that models see."""

_VERSION = 2
_AHEAD = 4  # images a core that wait to be written, where the disk is slower
_SEAL = len(f"{0:08x} {0:020d}\n")


class PixelStore:
    """Serve a catalogue's images as square uint8 arrays.

    Args:
        pixels: uint8 [N, size, size, 3], usually a memory map.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def fetch(self, index: Tensor, view: Tensor) -> Tensor:
        """Copy images out: int64 [B] to uint8 [B, size, size, 3]; every view starts from the same pixels."""
        return torch.from_numpy(self.pixels[index.numpy()])


def open_pixels(catalogue: Catalogue, size: int, interpolation: str, cache_dir: Path) -> PixelStore:
    """Open the store of a catalogue, after building it where there is none.

    The aspect ratio is not kept. One process builds; others wait. A store whose time of change is not the one that it
    was written with is summed up, and built again where it is damaged.

    Args:
        catalogue: The images.
        size: Side in pixels.
        interpolation: A key of `INTERPOLATIONS`.
        cache_dir: The store lies below it, in `pixels/`.

    Raises:
        InputError: An image cannot be read any more.
    """
    # Versions of Pillow differ in the last bits of what they resize.
    key = hashlib.sha256(f"{_VERSION} {PIL.__version__} {size} {interpolation}".encode())
    for image in catalogue.images:
        key.update(bytes.fromhex(image.sha256))
    file = cache_dir / "pixels" / f"{key.hexdigest()[:24]}.npy"
    shape = (len(catalogue.images), size, size, 3)
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        if file.exists():
            if (pixels := _read(file)) is not None:
                return PixelStore(pixels)
            warnings.warn(f"the pixel store {file} is damaged and built again", stacklevel=2)
        _build(catalogue, shape, lambda image: resize(image, size, interpolation), file)
        return PixelStore(np.load(file, mmap_mode="r"))


def resize(image: Image.Image, size: int, interpolation: str) -> np.ndarray:
    """Resize an RGB image to uint8 [size, size, 3]."""
    return np.asarray(image.resize((size, size), INTERPOLATIONS[interpolation]))


def _read(file: Path) -> np.ndarray | None:
    """Open a store that is whole, which its last bytes tell: the pixels' checksum, and when it was written."""
    try:
        pixels = np.load(file, mmap_mode="r")
        with file.open("rb") as stream:
            stream.seek(-_SEAL, os.SEEK_END)
            checksum, written = stream.read().decode("ascii").split(" ")
        untouched = file.stat().st_mtime_ns == int(written) * 10**9
        whole = untouched or int(checksum, 16) == zlib.crc32(pixels.reshape(-1).data)
    except (ValueError, EOFError, OSError):
        return None
    return pixels if whole else None


def _build(
    catalogue: Catalogue, shape: tuple[int, ...], shrink: Callable[[Image.Image], np.ndarray], file: Path
) -> None:
    temporary = file.with_suffix(".part")
    pool = ThreadPoolExecutor(os.cpu_count())

    def row(position: int) -> bytes:
        try:
            return shrink(read_rgb(catalogue.file(position), at_least=shape[1])).tobytes()
        except UnreadableImage as error:
            raise InputError(
                f"{catalogue.file(position)} was read before and cannot be any more ({error}); repeat the command, "
                "which looks at the folder anew, or put the image back"
            ) from None

    try:
        # Not written through a memory map: on a full disk that would end the process without a word.
        with temporary.open("wb") as stream:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            checksum = 0
            rows = bounded_map(
                lambda position: pool.submit(row, position), range(shape[0]), _AHEAD * (os.cpu_count() or 1)
            )
            for pixels in tqdm(rows, total=shape[0], desc="resizing images", unit="", leave=False):
                checksum = zlib.crc32(pixels, checksum)
                stream.write(pixels)
            written = int(time.time())  # whole seconds, as the coarsest file systems keep
            stream.write(f"{checksum:08x} {written:020d}\n".encode("ascii"))
            stream.flush()
            os.fsync(stream.fileno())
        os.utime(temporary, (written, written))
        temporary.replace(file)
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for all the rest
        temporary.unlink(missing_ok=True)
