"""Images that have no file of their own, written once below the cache folder."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock
from PIL import Image, ImageOps

from kth_lightning.data.catalogue import Subset
from kth_lightning.data.sources.source import Candidate, Listing
from kth_lightning.io.bounded_map import bounded_map
from kth_lightning.io.progress import Progress

_INDEX = "items.jsonl"
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")
_AHEAD = 4  # images a core that are under way


class Item(NamedTuple):
    """An image of a data set, and what it shows.

    Attributes:
        content: An image in memory, the bytes of a file, or where a file lies.
        label: Class name.
        problem: Why the image cannot be used; empty where it can.
    """

    content: Image.Image | bytes | Path
    label: str
    problem: str = ""


def write_once(name: str, count: int, item: Callable[[int], Item], subset: Subset, cache_dir: Path) -> Listing:
    """List items as files, which are written where that was not done before; after an interruption the rest are.

    Args:
        name: Of the folder below `cache_dir`; another one for other items.
        count: Number of items.
        item: Returns an item by its number; called from one thread, in order.
        subset: The part of the split that is prescribed for them.
        cache_dir: Where the folder is made.
    """
    folder = cache_dir.resolve() / "datasets" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            partial = folder.with_name(f"{name}.partial")
            partial.mkdir(exist_ok=True)
            _write_rest(partial, count, item)
            partial.rename(folder)
    listing = Listing(folder, candidates=[])
    for line in (folder / _INDEX).read_text(encoding="ascii").splitlines():
        path, label, problem = json.loads(line)
        if problem:
            listing.problems.append((folder / path, problem))
        else:
            listing.candidates.append(Candidate(folder / path, label, subset=subset))
    return listing


def folder_state(folder: Path) -> bytes:
    """Return what changes with a folder's files: a hash of their paths, sizes and times."""
    digest = hashlib.sha256()
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            status = Path(parent, name).stat()
            digest.update(os.fsencode(f"{parent}\0{name}\0{status.st_size}\0{status.st_mtime_ns}\0"))
    return digest.digest()


def _write_rest(folder: Path, count: int, item: Callable[[int], Item]) -> None:
    index = folder / _INDEX
    lines = index.read_bytes().splitlines(keepends=True) if index.exists() else []
    done = len(lines) - bool(lines and not lines[-1].endswith(b"\n"))  # the last was cut off
    index.write_bytes(b"".join(lines[:done]))
    bar = Progress(name="reading images", detail="writing files", total=count, initial=done)
    with index.open("ab") as stream, bar, _threads() as pool:

        def submit(number: int) -> Future[list[str]]:
            return pool.submit(_write, item(number), folder, f"{number:07}")

        for row in bounded_map(submit, range(done, count), _AHEAD * (os.cpu_count() or 1)):
            stream.write(json.dumps(row).encode("ascii") + b"\n")
            bar.update()


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for all the rest


def _write(item: Item, folder: Path, stem: str) -> list[str]:
    """Write an item, and return its row of the index: its path, label and problem."""
    content, label, problem = item
    if problem or isinstance(content, Path):
        return [str(content) if isinstance(content, Path) else stem, label, problem]
    if isinstance(content, bytes):
        (folder / stem).write_bytes(content)
        return [stem, label, ""]
    image = ImageOps.exif_transpose(content)
    lossless = image if image.mode in _PNG_MODES else image.convert("RGB")
    lossless.save(folder / f"{stem}.png", compress_level=1)
    return [f"{stem}.png", label, ""]
