import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import Dataset
from torchvision.datasets import MNIST, FakeData, ImageFolder, VisionDataset
from torchvision.transforms import v2

from kth_lightning import TorchvisionSource
from kth_lightning.data.sources.source import Listing, checked_listing
from kth_lightning.errors import InputError
from kth_lightning.testing import check_source


class Drawn(Dataset):
    """Give images in memory."""

    def __init__(self, images: list[Image.Image], labels: list[Any], classes: list[Any] | None = None) -> None:
        self.images, self.labels = images, labels
        if classes:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[Image.Image, Any]:
        return self.images[number].copy(), self.labels[number]


def noise(count: int, mode: str = "RGB", size: int = 24) -> list[Image.Image]:
    rng = np.random.default_rng(len(mode))
    pixels = rng.integers(0, 255, (count, size, size, 3), dtype=np.uint8)
    return [Image.fromarray(image).convert(mode) for image in pixels]


def shown(listing: Listing) -> list[tuple[str, str]]:
    return [(one.label, one.subset) for one in listing.candidates]


def written(listing: Listing) -> dict[Path, int]:
    return {one.file: one.file.stat().st_mtime_ns for one in listing.candidates}


def test_class_folders_are_listed_where_they_lie(images: Path, tmp_path: Path) -> None:
    listing = checked_listing(TorchvisionSource(ImageFolder(str(images))), tmp_path)
    assert listing.root == images
    assert len(listing.candidates) == 60
    assert listing.candidates[0].file == images / "class0/000.png"
    assert {one.label for one in listing.candidates} == {"class0", "class1", "class2"}
    assert not any(tmp_path.iterdir())


def test_mnist_is_written_once_with_its_classes_and_parts(mnist: Path, tmp_path: Path) -> None:
    source = TorchvisionSource(MNIST(str(mnist)), test=MNIST(str(mnist), train=False))
    listing = source.list(tmp_path / "cache")
    assert shown(listing)[:2] == [("0 - zero", "train"), ("1 - one", "train")]
    assert [subset for _, subset in shown(listing)].count("test") == 20
    first = Image.open(listing.candidates[1].file)
    assert np.array_equal(np.asarray(first), MNIST(str(mnist)).data[1].numpy())
    again = source.list(tmp_path / "cache")
    assert written(again) == written(listing)
    assert again == listing
    check_source(source)


def test_other_files_or_settings_are_other_images(mnist: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(mnist, root)
    listing = TorchvisionSource(MNIST(str(root))).list(tmp_path / "cache")
    other = TorchvisionSource(MNIST(str(root), train=False)).list(tmp_path / "cache")
    assert other.root != listing.root
    os.utime(root / "MNIST/raw/train-labels-idx1-ubyte", (1, 1))
    assert TorchvisionSource(MNIST(str(root))).list(tmp_path / "cache").root != listing.root


def test_what_lies_nowhere_is_told_by_its_content(tmp_path: Path) -> None:
    images, labels = noise(20), ["cat", "dog"] * 10
    listing = TorchvisionSource(Drawn(images, labels)).list(tmp_path)
    assert shown(listing) == [(label, "") for label in labels]
    assert TorchvisionSource(Drawn(images, labels)).list(tmp_path) == listing
    images[13].putpixel((0, 0), (1, 2, 3))
    assert TorchvisionSource(Drawn(images, labels)).list(tmp_path).root != listing.root
    check_source(TorchvisionSource(FakeData(size=30, image_size=(3, 20, 20), num_classes=3)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_is_written_without_loss(mode: str, tmp_path: Path) -> None:
    grey = [Image.fromarray(np.arange(576, dtype=np.uint16).reshape(24, 24))] * 2
    images = grey if mode == "I;16" else noise(2, mode)
    listing = TorchvisionSource(Drawn(images, [0, 1], ["a", ("b", "c")])).list(tmp_path)
    assert [one.label for one in listing.candidates] == ["a", "b, c"]
    with Image.open(listing.candidates[0].file) as image:
        expected = images[0] if mode != "CMYK" else images[0].convert("RGB")
        assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_an_item_that_cannot_be_read_is_a_problem_for_the_audit(tmp_path: Path) -> None:
    class Broken(Drawn):
        def __getitem__(self, number: int) -> tuple[Image.Image, Any]:
            if number == 3:
                raise OSError("half of it\nis missing")
            return super().__getitem__(number)

    listing = TorchvisionSource(Broken(noise(6), [0, 1] * 3)).list(tmp_path)
    assert len(listing.candidates) == 5
    assert [reason for _, reason in listing.problems] == ["unreadable: item 3: half of it is missing"]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (FakeData(4, transform=v2.ToImage()), r"is \(Image, int\), and not \(PIL image, label\); leave its"),
        (Drawn(noise(2), [(1, 2), (3, 4)]), r"has the label \(1, 2\), and not one class"),
        (Drawn(noise(2), [0, 2], ["a", "b"]), r"item 1 .* has the label 2, and the data set 2 classes"),
        (FakeData(4, transform=v2.RandomResizedCrop(8)), "gives another image every time; leave its transform out"),
        (iter([1]), "cannot be read item by item"),
    ],
)  # fmt: skip
def test_what_is_no_data_set_of_images_is_one_sentence(dataset: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        TorchvisionSource(dataset).list(tmp_path)


def test_writing_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()

    class Slow(FakeData):
        stop: int | None = 40
        read: list[int] = []  # noqa: RUF012

        def __init__(self) -> None:
            super().__init__(60, (3, 20, 20), 2)
            self.root = tmp_path / "root"

        def __getitem__(self, number: int) -> tuple[Image.Image, Any]:
            self.read.append(number)
            if number == self.stop and len(self.read) > 30:
                raise KeyboardInterrupt
            return super().__getitem__(number)

    source = TorchvisionSource(Slow())
    with pytest.raises(KeyboardInterrupt):
        source.list(tmp_path / "cache")
    (index,) = tmp_path.glob("cache/datasets/*.partial/items.jsonl")
    with index.open("a") as stream:
        stream.write('["00000')  # as a killed process may leave it
    Slow.stop, Slow.read = None, []
    listing = source.list(tmp_path / "cache")
    assert 40 in Slow.read
    assert 5 not in Slow.read, "what was written is not read again"
    assert [one.file.name for one in listing.candidates] == [f"{number:07}.png" for number in range(60)]
    for one in listing.candidates:
        assert np.array_equal(np.asarray(Image.open(one.file)), np.asarray(source.dataset[int(one.file.stem)][0]))


def test_a_data_set_of_torchvisions_own_kind_with_a_root(tmp_path: Path) -> None:
    class Lines(VisionDataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, number: int) -> tuple[Image.Image, str]:
            return noise(4)[number], "ab"[number % 2]

    assert len(TorchvisionSource(Lines(str(tmp_path))).list(tmp_path / "cache").candidates) == 4
