import os
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch

from kth_lightning.callbacks.feature_cache import FeatureCache
from kth_lightning.data.batch import MIRRORED
from kth_lightning.data.dataset import FeatureDataset, PixelDataset
from kth_lightning.data.module import ImageData
from kth_lightning.errors import InputError
from kth_lightning.models import FeatureHead, FineTuned
from kth_lightning.stores import features as feature_store
from kth_lightning.stores.features import CHUNK, FeatureStore

KEYS = torch.arange(1000, 1600)


def filled(folder: Path, views: dict[int, int], dtype: torch.dtype = torch.bfloat16) -> FeatureStore:
    store = FeatureStore(folder, KEYS, views)
    for view in views:
        for part in torch.arange(len(KEYS)).split(CHUNK):
            rows = (KEYS[part, None] * 10 + view).to(dtype).expand(-1, 3)
            store.write(part, torch.full_like(part, view), rows)
    store.open()
    return store


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("in_memory", [2**26, 0])
def test_rows_come_back_by_image_and_view(
    tmp_path: Path, dtype: torch.dtype, in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_store, "_TABLE_BYTES", in_memory)
    store = filled(tmp_path, {0: 0, 3: 77, MIRRORED: -1}, dtype)
    index, view = torch.tensor([599, 0, 256, 7, 8]), torch.tensor([3, 0, 3, 0, MIRRORED])
    rows = store.fetch(index, view)
    assert rows.dtype == dtype
    assert torch.equal(rows[:, 0], (KEYS[index] * 10 + view).to(dtype))


def test_another_catalogue_and_other_numbers_of_views_share_the_rows(tmp_path: Path) -> None:
    filled(tmp_path, {1: 77})
    fewer = FeatureStore(tmp_path, KEYS.flip(0)[1::2], {5: 77, 6: 78})
    everything = fewer.image_keys.argsort()
    assert fewer.missing(everything, [5]) == []
    assert len(fewer.missing(everything, [6])) == 300
    assert fewer.fetch(torch.tensor([0]), torch.tensor([5]))[0, 0] == torch.tensor(1598 * 10 + 1).bfloat16()


def test_the_same_content_twice_is_one_row(tmp_path: Path) -> None:
    keys = torch.tensor([5, 9, 5, 5])
    store = FeatureStore(tmp_path, keys, {0: 0})
    missing = store.missing(torch.arange(4).numpy(), [0])
    assert [index for index, _ in missing] == [0, 1]
    for position in (0, 1):
        store.write(torch.tensor([position]), torch.tensor([0]), torch.tensor([[position + 1.0]]))
    store.open()
    assert store.missing(torch.arange(4).numpy(), [0]) == []
    assert store.fetch(torch.tensor([3, 1, 2]), torch.tensor([0, 0, 0])).flatten().tolist() == [1.0, 2.0, 1.0]


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "text"])
def test_a_damaged_file_is_dropped_with_one_warning_and_only_its_rows_are_missing(tmp_path: Path, damage: str) -> None:
    filled(tmp_path, {0: 0})
    file = sorted(tmp_path.glob("*.safetensors"))[0]
    content = bytearray(file.read_bytes())
    content[-1] ^= 255
    damaged = {"cut": content[: len(content) // 2], "flipped": content, "emptied": b"", "text": b"no tensors at all"}
    file.write_bytes(damaged[damage])
    with pytest.warns(UserWarning, match="computed again") as caught:
        store = FeatureStore(tmp_path, KEYS, {0: 0})
    assert len(caught) == 1
    missing = len(store.missing(torch.arange(len(KEYS)).numpy(), [0]))
    assert 0 < missing < len(KEYS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.open()


def test_a_file_that_nothing_has_touched_is_not_summed_up_to_be_opened(tmp_path: Path) -> None:
    filled(tmp_path, {0: 0})
    file = sorted(tmp_path.glob("*.safetensors"))[0]
    written = file.stat().st_mtime_ns
    content = bytearray(file.read_bytes())
    content[content.index(b'"crc32":"') + 9] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(written, written))
    assert FeatureStore(tmp_path, KEYS, {0: 0}).missing(torch.arange(len(KEYS)).numpy(), [0]) == []


@pytest.fixture
def data(images: Path) -> Callable[..., ImageData]:
    def make(**settings: object) -> ImageData:
        return ImageData(root=str(images), image_size=64, batch_size=8, **settings)  # type: ignore[arg-type]

    return make


def losses(model: L.LightningModule, data: ImageData, store: FeatureCache | None) -> list[float]:
    class Losses(L.Callback):
        def __init__(self) -> None:
            self.found: list[float] = []

        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            self.found.append(float(trainer.callback_metrics["val/loss"]))
            assert (data.features("train") is not None) == (store is not None)

    kept = Losses()
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=3, logger=False, enable_checkpointing=False, num_sanity_val_steps=0,
        use_distributed_sampler=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[kept, *([store] if store else [])],
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    kept.found += trainer.test(model, datamodule=data, verbose=False)[0].values()
    return kept.found


@pytest.mark.parametrize(("kind", "tta_flip"), [(FeatureHead, False), (FineTuned, False), (FineTuned, True)])
def test_a_store_gives_the_figures_that_images_give(
    kind: type[FeatureHead | FineTuned], tta_flip: bool, data: Callable[..., ImageData]
) -> None:
    found = []
    for store in (None, FeatureCache()):
        L.seed_everything(0, verbose=False)
        model = kind(num_classes=3, backbone="resnet18", weights="none", image_size=64, tta_flip=tta_flip)
        found.append(losses(model, data(augmentation="standard", views=2, tta_flip=tta_flip), store))
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_maps_stored_with_a_head_spare_fine_tuning_the_trunk(data: Callable[..., ImageData], tmp_path: Path) -> None:
    found, seen = [], []

    def count(trunk: torch.nn.Module, inputs: tuple[torch.Tensor], maps: torch.Tensor) -> None:
        seen.append(len(maps))

    for position, (kind, store) in enumerate(
        [(FeatureHead, FeatureCache()), (FeatureHead, FeatureCache(1)), (FineTuned, FeatureCache())]
    ):
        L.seed_everything(0, verbose=False)
        model = kind(num_classes=3, backbone="resnet18", weights="none", image_size=64, tta_flip=True)
        model.get_submodule("trunk.0.0" if kind is FeatureHead else "trunk.0").register_forward_hook(count)
        settings = {"augmentation": "standard", "views": 2, "tta_flip": True}
        found.append(losses(model, data(cache_dir=str(tmp_path / str(min(position, 1))), **settings), store))
        if position < 2:
            assert sum(seen) == 42 * 2 + 18 * 2
            seen.clear()
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert not seen


def test_features_that_cannot_be_read_again_are_not_trained_on(
    data: Callable[..., ImageData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = FeatureStore.write

    def write_and_damage(store: FeatureStore, *rows: torch.Tensor) -> None:
        write(store, *rows)
        for file in store.folder.glob("*.safetensors"):
            file.write_bytes(file.read_bytes()[:-1])

    monkeypatch.setattr(FeatureStore, "write", write_and_damage)
    images = data(cache_dir=str(tmp_path))
    model = FeatureHead(num_classes=3, backbone="resnet18", weights="none", image_size=64)
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False, num_sanity_val_steps=0,
        use_distributed_sampler=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[FeatureCache()],
    )  # fmt: skip
    with pytest.warns(UserWarning, match="without a feature store, which could not be written whole"):
        trainer.fit(model, datamodule=images)
    assert isinstance(trainer.train_dataloader.dataset, PixelDataset)


@pytest.mark.parametrize(("kind", "stages"), [(FeatureHead, 9), (FineTuned, 1)])
def test_no_maps_are_stored_where_there_is_no_cut(
    kind: type[FeatureHead | FineTuned], stages: int, data: Callable[..., ImageData]
) -> None:
    model = kind(num_classes=3, backbone="resnet18", weights="none", image_size=64)
    with pytest.raises(InputError, match="--store_maps_before"):
        losses(model, data(), FeatureCache(stages))


def test_fresh_views_train_on_images_and_validate_on_features(data: Callable[..., ImageData]) -> None:
    fresh = data(augmentation="standard")
    model = FineTuned(num_classes=3, backbone="resnet18", weights="none", image_size=64)
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False, num_sanity_val_steps=0,
        use_distributed_sampler=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[FeatureCache()],
    )  # fmt: skip
    trainer.fit(model, datamodule=fresh)
    assert isinstance(trainer.train_dataloader.dataset, PixelDataset)
    assert isinstance(trainer.val_dataloaders.dataset, FeatureDataset)
