from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loader_batches import batches, joined
from PIL import Image

from kth_lightning.data.batch import PADDING, Batch
from kth_lightning.data.module import ImageData
from kth_lightning.data.sources.choose import source_name
from kth_lightning.data.sources.kth import KthSource
from kth_lightning.data.split_table import split_rows
from kth_lightning.errors import InputError
from kth_lightning.io.cache_folder import cache_folder
from kth_lightning.io.split_file import write_split
from kth_lightning.io.walk import MARK
from kth_lightning.stores.store import CLEAN, MIRRORED


@pytest.fixture
def data_of(images: Path) -> Callable[..., ImageData]:
    def make(**settings: Any) -> ImageData:
        return ImageData(**{"root": str(images), "image_size": 32, "batch_size": 8} | settings)

    return make


def fetched(data: ImageData, batch: Batch) -> torch.Tensor:
    return data.on_after_batch_transfer(dict(batch), 0)["images"]


def test_every_training_image_comes_once_an_epoch_with_its_label(data_of: Callable[..., ImageData]) -> None:
    data = data_of()
    found = batches(data)
    index = joined(found)
    assert sorted(index.tolist()) == data.split.indices("train").tolist()
    names = [data.class_names[label] for label in joined(found, "label")]
    assert names == [data.catalogue.images[position].label for position in index]
    assert [len(batch["index"]) for batch in found] == [8] * 5 + [2] == [batch["count"] for batch in found]
    assert len(data.train_dataloader()) == 6


def test_order_depends_on_seed_and_epoch_alone(data_of: Callable[..., ImageData]) -> None:
    data = data_of(seed=3)
    batches(data, epoch=7)
    order = joined(batches(data, epoch=2))
    torch.manual_seed(1)
    assert order.equal(joined(batches(data_of(seed=3), epoch=2)))
    assert not order.equal(joined(batches(data, epoch=3)))
    assert not order.equal(joined(batches(data_of(seed=4), epoch=2)))
    assert order.equal(joined(batches(data_of(seed=3, batch_size=5), epoch=2)))


@pytest.mark.parametrize("part", ["val", "test"])
def test_evaluation_sees_clean_images_in_the_order_of_the_catalogue(
    data_of: Callable[..., ImageData], part: str
) -> None:
    data = data_of(augmentation="strong", views=3)
    data.setup("fit")
    for epoch in (0, 5):
        found = batches(data, part, epoch)
        assert joined(found).tolist() == data.split.indices(part).tolist()
        assert (joined(found, "view") == 0).all()
        images = torch.cat([fetched(data, batch) for batch in found])
        pixels = data.pixels.fetch(torch.from_numpy(data.split.indices(part)))
        assert images.equal(pixels.permute(0, 3, 1, 2))


@pytest.mark.parametrize("world_size", [2, 3, 7])
@pytest.mark.parametrize("part", ["train", "val"])
def test_shares_of_all_processes_are_exactly_the_batch(
    data_of: Callable[..., ImageData], part: str, world_size: int
) -> None:
    data = data_of()
    whole = batches(data, part, 1)
    shares = [batches(data, part, 1, rank, world_size) for rank in range(world_size)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert len({len(item["index"]) for item in parts}) == 1
        assert {item["count"] for item in parts} == {len(batch["index"])}
        real = [item["index"][item["label"] != PADDING].tolist() for item in parts]
        assert sorted(position for rows in real for position in rows) == sorted(batch["index"].tolist())
        assert len(parts[0]["index"]) == -(-len(batch["index"]) // world_size)


def test_more_processes_than_images_get_padding(data_of: Callable[..., ImageData]) -> None:
    data = data_of(batch_size=2)
    shares = [batches(data, "val", 0, rank, 4) for rank in range(4)]
    assert [share[0]["label"].tolist() == [PADDING] for share in shares] == [False, False, True, True]
    data.setup("fit")
    assert fetched(data, shares[3][0]).shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("augmentation", "views", "listed"),
    [("blog", None, None), ("blog", 0, [0]), ("blog", 3, [1, 2, 3]), ("none", None, [0]), ("none", 3, [0])],
)
def test_training_is_seen_in_the_listed_views(
    data_of: Callable[..., ImageData], augmentation: str, views: int | None, listed: list[int] | None
) -> None:
    data = data_of(augmentation=augmentation, views=views)
    assert data.views_of("train") == listed
    assert data.views_of("val") == data.views_of("test") == [0]
    seen = [set(joined(batches(data, epoch=epoch), "view").tolist()) for epoch in range(4)]
    assert seen == [{epoch + 1 if listed is None else listed[epoch % len(listed)]} for epoch in range(4)]


def test_fresh_views_differ_by_epoch_and_stay_the_same_in_any_batch(data_of: Callable[..., ImageData]) -> None:
    def by_image(data: ImageData, epoch: int) -> torch.Tensor:
        data.setup("fit")
        found = batches(data, epoch=epoch)
        return torch.cat([fetched(data, batch) for batch in found])[joined(found).argsort()]

    first, second = (by_image(data_of(augmentation="standard"), epoch) for epoch in (0, 1))
    assert first.shape == second.shape == (42, 3, 32, 32)
    assert first.dtype == torch.uint8
    assert ((first != second).flatten(1).any(1)).all()
    assert first.equal(by_image(data_of(augmentation="standard", batch_size=5, seed=9), 0))
    assert not first.equal(by_image(data_of(augmentation="standard", augmentation_seed=1), 0))


def test_a_gpu_that_is_not_trained_on_pins_no_memory(
    data_of: Callable[..., ImageData], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of()
    data.setup("fit")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not data.train_dataloader().pin_memory


def test_images_are_what_a_batch_shows(data_of: Callable[..., ImageData]) -> None:
    data = data_of(augmentation="standard", views=2)
    data.setup("fit")
    batch = batches(data, epoch=1)[0]
    shown = data.images(batch["index"], batch["view"], torch.device("cpu"))
    assert shown.equal(fetched(data, batch))


def test_the_mirrored_view_is_the_mirror_image(data_of: Callable[..., ImageData]) -> None:
    data = data_of(augmentation="standard")
    data.setup("fit")
    index = torch.tensor([3, 4, 5])
    clean = data.images(index, torch.full_like(index, CLEAN), torch.device("cpu"))
    mixed = data.images(index, torch.tensor([MIRRORED, CLEAN, 1]), torch.device("cpu"))
    assert mixed[0].equal(clean[0].flip(2))
    assert mixed[1].equal(clean[1])
    assert not mixed[2].equal(clean[2])


def test_images_of_the_same_content_have_the_same_key(data_of: Callable[..., ImageData], tmp_path: Path) -> None:
    data = data_of()
    assert len(set(data.keys.tolist())) == 60
    assert (data.keys >= 0).all()


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    for label, count in {"cat": 40, "dog": 8}.items():
        (tmp_path / "uneven" / label).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "uneven" / label / f"{number}.png")
    return tmp_path / "uneven"


def test_a_line_describes_split_and_imbalance(uneven: Path, data_of: Callable[..., ImageData]) -> None:
    assert data_of(root=str(uneven)).describe() == (
        "34 training, 7 validation and 7 test images in 2 classes; training images per class: 6 (dog) to 28 (cat)"
    )


def test_classes_of_equal_size_are_not_told_as_a_range(data_of: Callable[..., ImageData]) -> None:
    data = data_of()
    assert data.describe().endswith("; training images per class: 14 in each")
    assert "images per class: 20 in each\n" in data.prepared.summary


def test_a_split_that_was_written_is_used_again(data_of: Callable[..., ImageData], tmp_path: Path) -> None:
    first = data_of(split_seed=5)
    write_split(split_rows(first.catalogue, first.split), tmp_path / "splits.csv")
    assert data_of(splits=str(tmp_path / "splits.csv")).split == first.split
    assert data_of().split != first.split


def test_folds_give_different_test_images(data_of: Callable[..., ImageData]) -> None:
    tested = [set(joined(batches(data_of(num_folds=3, fold=fold), "test")).tolist()) for fold in range(3)]
    assert set.union(*tested) == set(range(60))
    assert [len(item) for item in tested] == [20, 20, 20]


def test_kth_takes_180_and_100_images_and_a_folder_shares(data_of: Callable[..., ImageData]) -> None:
    kth, folder = ImageData(source="kth"), data_of()
    assert (kth.val_size, kth.test_size) == (180, 100)
    assert (folder.val_size, folder.test_size) == (0.15, 0.15)
    assert [len(folder.split.indices(part)) for part in ("train", "val", "test")] == [42, 9, 9]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({}, "sample"),
        ({"source": None, "archive": "a.tar.gz", "root": None}, "kth"),
        ({"root": "images"}, "folder"),
        ({"table": "images.csv"}, "table"),
        ({"source": "kth"}, "kth"),
        ({"source": "sample", "root": "images"}, "sample"),
        ({"source": {"class_path": "mine.MySource", "init_args": {}}}, "mine.MySource"),
        ({"source": {"class_path": "kth_lightning.KthSource"}}, "kth"),
        ({"source": KthSource()}, "kth"),
    ],
)
def test_source_follows_from_the_flags_that_name_a_place(given: dict[str, Any], meant: str) -> None:
    assert source_name(given) == meant


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "folder"}, r"--data\.source folder needs --data\.root DIR"),
        ({"source": "sample", "root": "x"}, r"--data\.root goes with --data\.source folder"),
        ({"archive": "x.tar.gz", "root": "x"}, r"--data\.root goes with --data\.source folder"),
        ({"source": "folder", "root": "x", "archive": "y"}, r"--data\.archive goes with --data\.source kth"),
        ({"source": "table"}, r"--data\.source table needs --data\.table FILE"),
        ({"source": KthSource(), "archive": "y"}, r"--data\.archive goes with --data\.source kth"),
        ({"source": "web"}, r"--data\.source web: give one of sample, kth, folder, table, or a class such as"),
        ({"test_root": "x"}, r"--data\.test_root goes with --data\.source folder"),
        ({"root": "x", "splits": "s.csv", "num_folds": 5}, r"--data\.splits and --data\.num_folds"),
        ({"root": "x", "fold": 2}, r"--data\.fold 2 needs --data\.num_folds"),
        ({"root": "x", "batch_size": 0}, r"--data\.batch_size 0: give a whole number from 1 to"),
        ({"root": "x", "image_size": 16}, r"--data\.image_size 16: give a whole number from 32 to"),
        ({"root": "x", "views": -1}, r"--data\.views -1"),
        ({"root": "x", "split_seed": -1}, r"--data\.split_seed -1"),
        ({"root": "x", "interpolation": "cubic"}, r"--data\.interpolation cubic: give one of nearest, bilinear"),
        ({"root": "x", "augmentation": "strnog"}, r"--data\.augmentation 'strnog' is unknown; did you mean strong"),
    ],
)
def test_flags_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImageData(**settings)


def test_cache_folder_is_the_variables_or_the_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_of: Callable[..., ImageData]
) -> None:
    monkeypatch.setenv("KTH_LIGHTNING_CACHE", str(tmp_path / "variable"))
    assert cache_folder() == tmp_path / "variable"
    data_of(cache_dir=str(tmp_path / "flag")).prepare_data()
    assert {item.name for item in (tmp_path / "flag").iterdir()} == {MARK, "catalogues", "pixels"}
    assert not (tmp_path / "variable").exists()
