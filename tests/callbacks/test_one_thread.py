"""Heads are trained on stored vectors by one thread; everything else has the threads that torch had."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from kth_lightning import BenchmarkCNN, Classifier, FeatureHead, FineTuned, ImageData, fit

THREADS = 3


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


class Seen(L.Callback):
    """Note how many threads there are."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.training: set[int] = set()
        self.elsewhere: set[int] = set()

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.training.add(torch.get_num_threads())
        if self.fails:
            raise RuntimeError("a mistake of one's own")

    def on_train_start(self, *args: Any, **kwargs: Any) -> None:
        self.elsewhere.add(torch.get_num_threads())

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.elsewhere.add(torch.get_num_threads())


def train(images: Path, run: Path, make: type[Classifier], seen: Seen, **settings: Any) -> None:
    data = ImageData(root=str(images), image_size=32, views=1)
    model = make(data.num_classes, class_names=data.class_names, image_size=32, **settings)
    fit(model, data, run, max_epochs=2, accelerator="cpu", devices=1, callbacks=[seen], logger=False)


RESNET = {"backbone": "resnet10t", "weights": "none"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "settings", "threads"),
    [
        (FeatureHead, RESNET, 1),
        (FineTuned, RESNET | {"trained_stages": 1}, THREADS),
        (BenchmarkCNN, {"filters": [4, 8], "block_dropout": [0, 0]}, THREADS),
    ],
)
def test_steps_on_vectors_have_one_thread(
    images: Path, tmp_path: Path, make: type[Classifier], settings: dict[str, Any], threads: int
) -> None:
    seen = Seen()
    train(images, tmp_path / "run", make, seen, **settings)
    assert seen.training == {threads}
    assert seen.elsewhere == {THREADS}
    assert torch.get_num_threads() == THREADS


def test_a_run_that_fails_leaves_the_threads_as_they_were(images: Path, tmp_path: Path) -> None:
    seen = Seen(fails=True)
    with pytest.raises(RuntimeError, match="a mistake of one's own"):
        train(images, tmp_path / "run", FeatureHead, seen, **RESNET)
    assert seen.training == {1}
    assert torch.get_num_threads() == THREADS
