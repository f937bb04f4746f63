"""The pixel store: every picture decoded and resized once, kept as one memory-mapped file."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from kth_lightning.data.catalogue import Catalogue
from kth_lightning.data.images import read_rgb

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_VERSION = 1


class PixelStore:
    """Serve a catalogue's pictures as square uint8 arrays.

    Args:
        pixels: uint8 [N, size, size, 3], usually a memory map.
    """

    field = "images"

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def fetch(self, index: Tensor, view: Tensor) -> Tensor:
        """Copy pictures out: int64 [B] to uint8 [B, size, size, 3]; every view starts from the same pixels."""
        return torch.from_numpy(self.pixels[index.numpy()])


def open_pixels(catalogue: Catalogue, size: int, interpolation: str, cache_dir: Path) -> PixelStore:
    """Open the store of a catalogue, after building it where there is none.

    The aspect ratio is not kept. One process builds; others wait.

    Args:
        catalogue: The pictures.
        size: Side in pixels.
        interpolation: A key of `INTERPOLATIONS`.
        cache_dir: The store lies below it, in `pixels/`.
    """
    key = hashlib.sha256(f"{_VERSION} {size} {interpolation}".encode())
    for picture in catalogue.pictures:
        key.update(bytes.fromhex(picture.sha256))
    file = cache_dir / "pixels" / f"{key.hexdigest()[:24]}.npy"
    shape = (len(catalogue.pictures), size, size, 3)
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        if not file.exists():
            _build(catalogue, shape, lambda picture: resize(picture, size, interpolation), file)
        return PixelStore(np.load(file, mmap_mode="r"))


def resize(picture: Image.Image, size: int, interpolation: str) -> np.ndarray:
    """Resize an RGB picture to uint8 [size, size, 3]."""
    return np.asarray(picture.resize((size, size), INTERPOLATIONS[interpolation]))


def _build(
    catalogue: Catalogue, shape: tuple[int, ...], shrink: Callable[[Image.Image], np.ndarray], file: Path
) -> None:
    temporary = file.with_suffix(".part")
    try:
        store = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)

        def fill(place: int) -> None:
            store[place] = shrink(read_rgb(catalogue.file(place), at_least=shape[1]))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            places = range(shape[0])
            for _ in tqdm(pool.map(fill, places), total=shape[0], desc="resizing pictures", unit="", leave=False):
                pass
        store.flush()
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
