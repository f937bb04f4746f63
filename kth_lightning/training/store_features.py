"""The callback that has the frozen trunk fill the feature store and hands it to the data module."""

import hashlib

import lightning as L
import PIL
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from tqdm import tqdm

from kth_lightning.data.module import CLEAN, MIRRORED, PictureData
from kth_lightning.data.split import Part
from kth_lightning.models import Classifier
from kth_lightning.training.feature_store import CHUNK, FeatureStore

_BATCH = 32


class StoreFeatures(L.Callback):
    """Compute what the trunk makes of every picture in every view ahead, once, by all processes together.

    A part of the split that is seen in new views every epoch stays on pictures, and so does a model without a trunk.
    """

    def __init__(self) -> None:
        self.store: FeatureStore | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Store what training and validation will look at."""
        self._store(trainer, pl_module, ["train", "val"])

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Store the validation pictures' features, where `validate` runs alone."""
        if trainer.state.fn != TrainerFn.FITTING:
            self._store(trainer, pl_module, ["val"])

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Store the test pictures' features."""
        self._store(trainer, pl_module, ["test"])

    def _store(self, trainer: L.Trainer, model: L.LightningModule, parts: list[Part]) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, PictureData)
        assert isinstance(model, Classifier)
        views = {part: found for part in parts if (found := _views_to_store(data, part)) is not None}
        if model.trunk is None or not views:
            return
        try:
            # Opened once a run: gigabytes are read and checked.
            self.store = store = self.store or _open(trainer, model, data)
            wanted = [row for part in views for row in store.missing(data.split.indices(part), views[part])]
            self._fill(trainer, model, data, store, wanted)
            problem = None
        except OSError as error:
            problem = error
        if not trainer.strategy.reduce_boolean_decision(problem is None, all=True):
            rank_zero_warn(f"training goes on without a feature store, which could not be written: {problem}")
            return
        store.open()
        for part in views:
            data.stores[part] = store

    def _fill(
        self,
        trainer: L.Trainer,
        model: Classifier,
        data: PictureData,
        store: FeatureStore,
        wanted: list[tuple[int, int]],
    ) -> None:
        if not wanted:
            return
        starts = range(0, len(wanted), CHUNK)[trainer.global_rank :: trainer.world_size]
        bar = tqdm(total=len(wanted), desc="computing features", unit="", leave=False, disable=trainer.global_rank > 0)
        with torch.inference_mode(), trainer.precision_plugin.forward_context(), bar:
            for start in starts:
                index, view = torch.tensor(wanted[start : start + CHUNK]).unbind(1)
                parts = []
                for some_index, some_view in zip(index.split(_BATCH), view.split(_BATCH), strict=True):
                    images = data.images(some_index, some_view, model.device)
                    parts.append(model.features(images).cpu())
                    bar.update(len(images) * trainer.world_size)
                store.write(index, view, torch.cat(parts))


def _open(trainer: L.Trainer, model: Classifier, data: PictureData) -> FeatureStore:
    parts: tuple[Part, ...] = ("train", "val", "test")
    keys = {view: _view_key(data, view) for part in parts for view in _views_to_store(data, part) or []}
    return FeatureStore(data.cache_dir / "features" / _trunk_key(trainer, model, data), data.keys, keys)


def _trunk_key(trainer: L.Trainer, model: Classifier, data: PictureData) -> str:
    """Name what a clean picture's features depend on, apart from the picture."""
    settings = f"{model.trunk} {trainer.precision} {data.image_size} {data.interpolation} {PIL.__version__}"
    key = hashlib.sha256(settings.encode())
    for tensor in (*model.preprocess.state_dict().values(), *model.frozen_state().values()):
        key.update(tensor.cpu().contiguous().numpy().tobytes())
    return key.hexdigest()[:24]


def _views_to_store(data: PictureData, part: Part) -> list[int] | None:
    views = data.views_of(part)
    if views is None or part == "train" or not data.mirror:
        return views
    return [*views, MIRRORED]


def _view_key(data: PictureData, view: int) -> int:
    """Return a number for a view that is the same in every run that draws it alike."""
    if view in (CLEAN, MIRRORED):
        return view
    settings = f"{data.augmentation.preset} {data.augmentation.seed} {view}"
    return int.from_bytes(hashlib.sha256(settings.encode()).digest()[:8]) >> 1
