import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from torchvision.datasets import MNIST

from kth_lightning import (
    Candidate,
    FolderSource,
    HuggingFaceSource,
    KthSource,
    Listing,
    SampleSource,
    Source,
    TableSource,
    TorchvisionSource,
)
from kth_lightning.testing import check_source


def folder(images: Path, mnist: Path, tmp_path: Path) -> Source:
    return FolderSource(images)


def sample(images: Path, mnist: Path, tmp_path: Path) -> Source:
    return SampleSource(90)


def table(images: Path, mnist: Path, tmp_path: Path) -> Source:
    rows = [f"{images}/class{label}/{number:03}.png,{label}" for label in range(3) for number in range(20)]
    (tmp_path / "t.csv").write_text("path,label\n" + "\n".join(rows))
    return TableSource(str(tmp_path / "t.csv"))


def torchvision(images: Path, mnist: Path, tmp_path: Path) -> Source:
    return TorchvisionSource(MNIST(str(mnist)), test=MNIST(str(mnist), train=False))


def hugging_face(images: Path, mnist: Path, tmp_path: Path) -> Source:
    datasets = pytest.importorskip("datasets")
    saved = datasets.load_dataset("imagefolder", data_dir=str(images), cache_dir=str(tmp_path / "hf"))
    saved.save_to_disk(str(tmp_path / "saved"))
    return HuggingFaceSource(str(tmp_path / "saved"))


def archive(images: Path, mnist: Path, tmp_path: Path) -> Source:
    if "KTH_ANIMALS_ARCHIVE" not in os.environ:
        pytest.skip("KTH_ANIMALS_ARCHIVE names no archive")
    return KthSource(os.environ["KTH_ANIMALS_ARCHIVE"])


@pytest.mark.parametrize(
    "source",
    [folder, sample, table, torchvision, hugging_face, pytest.param(archive, marks=pytest.mark.slow)],
    ids=lambda source: source.__name__,
)
def test_built_in_sources_keep_the_promises(
    source: Callable[..., Source], images: Path, mnist: Path, tmp_path: Path
) -> None:
    check_source(source(images, mnist, tmp_path))


class Broken:
    def __init__(self, images: Path, fault: str) -> None:
        self.images = images
        self.fault = fault
        self.calls = 0

    def list(self, cache_dir: Path) -> Listing:
        self.calls += 1
        candidates = [Candidate(file, file.parent.name) for file in sorted(self.images.rglob("*.png"))]
        folder = self.images
        if self.fault == "order":
            candidates = candidates[self.calls :]
        if self.fault == "again":
            folder = cache_dir / "copy"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(self.images, folder, copy_function=shutil.copy)
            candidates = [Candidate(file, file.parent.name) for file in sorted(folder.rglob("*.png"))]
        if self.fault == "missing":
            candidates.append(Candidate(folder / "gone.png", "class0"))
        if self.fault == "mask":
            candidates[0] = Candidate(candidates[0].file, "class0", folder / "gone.png")
        if self.fault == "one class":
            candidates = candidates[:20]
        return Listing(folder, candidates if self.fault != "nothing" else [])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nothing", "lists no image"),
        ("order", "lists other files when it is asked again"),
        ("again", r"writes .*\.png again when it is asked again"),
        ("missing", r"lists .*gone\.png, which does not exist"),
        ("mask", r"lists the mask .*gone\.png, which does not exist"),
        ("one class", "images of one class only"),
    ],
)
def test_a_promise_that_is_not_kept_is_named(images: Path, fault: str, message: str) -> None:
    check_source(Broken(images, ""))
    with pytest.raises(AssertionError, match=message):
        check_source(Broken(images, fault))
    with pytest.raises(AssertionError, match="has no method list"):
        check_source(images)  # type: ignore[arg-type]
