from collections.abc import Callable, Iterable
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kth_lightning import Predictor
from kth_lightning.io.run_folder import RunFolder

STATUS = Path("/proc/self/status")
pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="anonymous memory is read from Linux's /proc")

WARM_UP, COUNT = 300, 1000
GROWTH = 1_000_000  # bytes; the pixels that the model sees of a thousand images are 3 MB


def anonymous_memory() -> int:
    line = next(line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith("RssAnon:"))
    return 1024 * int(line.split()[1])


def one_by_one(predictor: Predictor, images: Iterable) -> None:
    for image in images:
        predictor(image)


def streamed(predictor: Predictor, images: Iterable) -> None:
    for _ in predictor.stream(images, batch_size=8):
        pass


@pytest.mark.parametrize("predict", [one_by_one, streamed])
def test_a_thousand_predictions_in_one_process_leave_its_anonymous_memory_as_it_was(
    tiny_run: RunFolder, images: Path, predict: Callable[[Predictor, Iterable], None]
) -> None:
    predictor = Predictor(tiny_run.best_checkpoint, device="cpu")
    files = sorted(images.rglob("*.png"))
    arrays = list(np.random.default_rng(0).integers(0, 256, (20, 200, 160, 3), dtype=np.uint8))
    endless = cycle([*files, *arrays, *map(Image.fromarray, arrays), images / "missing.png"])
    predict(predictor, islice(endless, WARM_UP))
    before = anonymous_memory()
    predict(predictor, islice(endless, COUNT))
    assert anonymous_memory() - before < GROWTH
