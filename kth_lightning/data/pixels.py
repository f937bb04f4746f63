"""Pixels: every image decoded and resized once, and kept in a store."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
import torch
from filelock import FileLock

from kth_lightning.data.catalogue import Catalogue
from kth_lightning.data.images import UnknownRangeError, UnreadableImage, read_rgb
from kth_lightning.data.square import Square
from kth_lightning.errors import InputError
from kth_lightning.io.bounded_map import bounded_map
from kth_lightning.io.progress import Progress
from kth_lightning.stores.store import CLEAN, Store

_FILE_BYTES = 2**26  # of pixels that are written at once
_AHEAD = 4  # images a core that wait to be written, where the disk is slower


def open_pixels(catalogue: Catalogue, square: Square, cache_dir: Path) -> Store:
    """Open the store of square images, uint8 [size, size, 3], after decoding those that it lacks.

    One process decodes; others wait.

    Args:
        catalogue: The images.
        square: What they become.
        cache_dir: The store lies below it, in `pixels/`.

    Raises:
        InputError: An image cannot be read any more.
        OSError: The disk is full, or damages what is written to it.
    """
    # Versions of Pillow differ in the last bits of what they resize.
    settings = f"{PIL.__version__} {square.identity}"
    if catalogue.read_options.value_range:
        settings += f" {catalogue.read_options.value_range}"
    key = hashlib.sha256(settings.encode()).hexdigest()[:24]
    folder = cache_dir / "pixels" / key
    folder.parent.mkdir(parents=True, exist_ok=True)
    every = np.arange(len(catalogue.images))
    with FileLock(f"{folder}.lock"):
        store = Store(folder, torch.from_numpy(catalogue.content_keys), {CLEAN: CLEAN})
        missing = [index for index, _ in store.missing(every, [CLEAN])]
        if missing:
            _decode(store, catalogue, missing, square)
            store.open()
            if store.missing(every, [CLEAN]):
                raise OSError(None, "what was written there cannot be read again", str(folder))
        return store


def _decode(store: Store, catalogue: Catalogue, missing: Sequence[int], square: Square) -> None:
    pool, writer = ThreadPoolExecutor(os.cpu_count()), ThreadPoolExecutor(1)

    def decoded(index: int) -> np.ndarray:
        try:
            return square.pixels(read_rgb(catalogue.pixels(index), square.size, catalogue.read_options))
        except UnknownRangeError:
            raise InputError(
                f"{catalogue.file(index)} is deeper than 8 bits, and neither it nor the checkpoint, which was trained "
                "on 8 bits, says which values are black and white; give --data.value_range, such as [0, 4095]"
            ) from None
        except UnreadableImage as error:
            raise InputError(
                f"{catalogue.file(index)} can no longer be read ({error}); repeat the command, which "
                "reads the folder again, or put the image back"
            ) from None

    def write(rows: list[np.ndarray], index: Sequence[int]) -> None:
        images = torch.tensor(index)
        store.write(images, torch.full_like(images, CLEAN), torch.from_numpy(np.stack(rows)))

    rows: list[np.ndarray] = []
    written: Future[None] | None = None  # the file before, which goes to the disk meanwhile
    at_once = max(1, _FILE_BYTES // (square.size**2 * 3))
    try:
        images = bounded_map(lambda index: pool.submit(decoded, index), missing, _AHEAD * (os.cpu_count() or 1))
        bar = Progress(images, "resizing images", total=len(missing))
        for number, image in enumerate(bar, start=1):
            rows.append(image)
            if len(rows) == at_once or number == len(missing):
                if written is not None:
                    written.result()
                written = writer.submit(write, rows, missing[number - len(rows) : number])
                rows = []
        if written is not None:
            written.result()
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for all the rest
        writer.shutdown()
