import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import lightning as L
import pytest
import torch

from kth_lightning.callbacks.feature_cache import FeatureCache
from kth_lightning.data.dataset import FeatureDataset, PixelDataset
from kth_lightning.data.module import ImageData
from kth_lightning.errors import InputError
from kth_lightning.models import Classifier, FeatureHead, FineTuned
from kth_lightning.stores.store import Store


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_maps_stored_with_a_head_spare_fine_tuning_the_trunk(data: Callable[..., ImageData], tmp_path: Path) -> None:
    found, seen = [], []

    def count(trunk: torch.nn.Module, inputs: tuple[torch.Tensor], maps: torch.Tensor) -> None:
        if len(maps) > 3:  # up to three images show how the trunk can be folded
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
            assert sum(seen) == 42 * 2 + 16 * 2  # and two of each other part, as few as show how the trunk is folded
            seen.clear()
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert not seen


def test_features_that_cannot_be_read_again_are_not_trained_on(
    data: Callable[..., ImageData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Store.write

    def write_and_damage(store: Store, *rows: torch.Tensor) -> None:
        write(store, *rows)
        for file in store.folder.glob("*.safetensors") if store.folder.parent.name == "features" else ():
            file.write_bytes(file.read_bytes()[:-1])

    monkeypatch.setattr(Store, "write", write_and_damage)
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


class Hungry(torch.nn.Module):
    """Average images, where no more of them come than a device's memory holds."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.sizes: list[int] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(inputs))
        if len(inputs) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return inputs.mean((2, 3))


class Averaged(Classifier):
    def __init__(self, num_classes: int, most: int) -> None:
        super().__init__(num_classes, image_size=64)
        self.trunk = Hungry(most)
        self.dense = torch.nn.Linear(3, num_classes)

    def tail(self, features: torch.Tensor) -> torch.Tensor:
        return self.dense(features)


@pytest.mark.slow
def test_a_batch_that_the_memory_does_not_hold_is_computed_in_halves(
    data: Callable[..., ImageData], tmp_path: Path
) -> None:
    found, sizes = [], []
    for most in (1000, 3):
        L.seed_everything(0, verbose=False)
        model = Averaged(3, most)
        images = data(augmentation="standard", views=2, cache_dir=str(tmp_path / str(most)))
        found.append(losses(model, images, FeatureCache()))
        sizes.append(model.trunk.sizes)
    assert found[0] == found[1]
    assert max(sizes[0]) == 8
    assert sizes[1][:3] == [8, 4, 2]  # and goes on with two at a time
    assert max(sizes[1][3:20]) == 2
    assert sum(size for size in sizes[1] if size <= 3) == sum(sizes[0])


def test_memory_that_does_not_hold_one_image_ends_the_run(data: Callable[..., ImageData], tmp_path: Path) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        losses(Averaged(3, 0), data(cache_dir=str(tmp_path)), FeatureCache())


SHIFTED = """
import torch
from kth_lightning.models import Classifier


class Shift(torch.nn.Module):
    def __init__(self, by: list[float]) -> None:
        super().__init__()
        self.by = by

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.mean((2, 3)) / 9 + torch.tensor(self.by)


class Shifted(Classifier):
    def __init__(self, num_classes: int, by: list[float]) -> None:
        super().__init__(num_classes, image_size=64)
        self.trunk = torch.nn.Sequential(Shift(by), torch.nn.Tanh())
        self.dense = torch.nn.Linear(3, num_classes)

    def tail(self, features: torch.Tensor) -> torch.Tensor:
        return self.dense(features)
"""


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., type[Classifier]]:
    """Run code as a module, and as one of a notebook or of `python -c` where it is written into no file."""

    def write(code: str, in_a_file: bool) -> type[Classifier]:
        module = ModuleType("shifted" if in_a_file else "__main__")
        if in_a_file:
            module.__file__ = str(tmp_path / "shifted.py")
            Path(module.__file__).write_text(code)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(code, vars(module))
        return module.Shifted

    return write


def test_features_of_one_network_are_never_those_of_another(
    written: Callable[..., type[Classifier]], data: Callable[..., ImageData], tmp_path: Path
) -> None:
    kind, found = written(SHIFTED, True), []
    for cache, by in (("both", 0.0), ("both", 1.0), ("alone", 1.0)):
        L.seed_everything(0, verbose=False)
        found.append(losses(kind(3, [by] * 3), data(cache_dir=str(tmp_path / cache)), FeatureCache()))
    assert found[1] == found[2] != found[0]
    assert len(list((tmp_path / "both/features").iterdir())) == 2, "and those of a run are shared by its test"


def test_features_of_a_network_in_a_notebook_are_not_stored_and_that_is_said(
    written: Callable[..., type[Classifier]], data: Callable[..., ImageData], tmp_path: Path
) -> None:
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False, num_sanity_val_steps=0,
        use_distributed_sampler=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[FeatureCache()],
    )  # fmt: skip
    sentence = (
        "training goes on without a feature store, since its frozen network cannot be told from others: the code of "
        "__main__ is in no file; write it into a module, and import that"
    )
    with pytest.warns(UserWarning, match=f"^{sentence}$") as caught:
        trainer.fit(written(SHIFTED, False)(3, [0.5] * 3), datamodule=data(cache_dir=str(tmp_path)))
    assert sum("feature store" in str(warning.message) for warning in caught) == 1
    assert isinstance(trainer.train_dataloader.dataset, PixelDataset)
    assert not (tmp_path / "features").exists()
