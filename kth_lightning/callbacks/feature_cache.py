"""The callback that has the frozen trunk fill the feature store and hands it to the data module."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import lightning as L
import PIL
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from kth_lightning.callbacks.halved_batches import HalvedBatches
from kth_lightning.data.module import ImageData
from kth_lightning.data.split import Part
from kth_lightning.errors import InputError
from kth_lightning.io.bounded_map import bounded_map
from kth_lightning.io.class_path import class_path
from kth_lightning.io.progress import Progress
from kth_lightning.models import Classifier, FeatureHead
from kth_lightning.models.fingerprint import fingerprint
from kth_lightning.models.folding import Folded, has_norms
from kth_lightning.stores.store import CLEAN, MIRRORED, Store
from kth_lightning.stores.value_hash import UntoldError

_BATCH, _ACCELERATED_BATCH = 8, 256  # what eight images become stays in the cache of a CPU
_AT_ONCE = 256  # rows a file

_STAGES: dict[Part, tuple[str, str]] = {
    "train": ("features", "training images"),
    "val": ("features", "validation images"),
    "test": ("testing", "features"),
}
"""What the progress is of where a part's features are computed."""


class _Computed(NamedTuple):
    """How features come about.

    Attributes:
        read: From indices in the catalogue int64 [B] and views int64 [B] to what the trunk needs of them, on the CPU.
        compute: From that, on the device, and the same indices and views to features [B, ...].
    """

    read: Callable[[Tensor, Tensor], Tensor]
    compute: Callable[[Tensor, Tensor, Tensor], Tensor]


class FeatureCache(L.Callback):
    """Compute what the trunk makes of every image in every view ahead, once, by all processes together.

    A part of the split that is seen in new views every epoch stays on images, and so does a model without a trunk.

    Args:
        maps_before: Number of the trunk's last stages in front of which its maps are stored as well, for a later run
            that trains those stages; 0 for none. Only a `FeatureHead` has stages to spare.
    """

    def __init__(self, maps_before: int = 0) -> None:
        self.maps_before = maps_before
        self._cut: tuple[nn.Module, nn.Module] | None = None
        self._opened: dict[nn.Module, Store] = {}
        self._folded: dict[nn.Module, Folded] = {}
        self._unwritten: set[tuple[nn.Module, Part]] = set()
        self._asked: dict[Part, Store | None] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Have the data module ask for features where it makes its loaders: by then the trunk is on its device."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, ImageData) and isinstance(pl_module, Classifier):
            self._asked.clear()
            data.find_features = partial(self._answer, trainer, pl_module)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave the data module as it was."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, ImageData):
            data.find_features = None

    def _answer(self, trainer: L.Trainer, model: Classifier, part: Part) -> Store | None:
        if part not in self._asked:
            self._asked[part] = self._store(trainer, model, part)
        return self._asked[part]

    def _store(self, trainer: L.Trainer, model: Classifier, part: Part) -> Store | None:
        """Store what the trunk makes of a part's images; None where it has to be made anew at every step."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        views = _views_to_store(data, part)
        if model.trunk is None or views is None:
            if model.trunk is not None and data.views_of(part) is not None:
                rank_zero_warn(
                    f"the augmentation {class_path(data.augmentation)} cannot be told from others like it, so its "
                    "views are made anew in every epoch instead of stored; give it an attribute `identity`, a text "
                    "that changes with what it draws"
                )
            return None
        compute = self._from_images(data, model, model.trunk)
        if self.maps_before:
            if not isinstance(model, FeatureHead):
                raise InputError("--store_maps_before goes with a FeatureHead; leave it out")
            self._cut = before, behind = self._cut or model.cut_trunk(self.maps_before)
            maps = self._filled(trainer, model, before, part, views, self._from_images(data, model, before))
            if maps is not None:
                compute = self._from_maps(maps, behind)
        return self._filled(trainer, model, model.trunk, part, views, compute)

    def _from_images(self, data: ImageData, model: Classifier, trunk: nn.Module) -> _Computed:
        folded = self._folded.setdefault(trunk, Folded(trunk))  # once a run: whether it gives the same is tried

        def compute(pixels: Tensor, index: Tensor, view: Tensor) -> Tensor:
            images = data.in_views(pixels, index, view)
            try:
                features = folded(model.preprocess(images))
            except (AttributeError, TypeError):  # what folding stumbles over in a trunk that gives no tensor
                model.features(images[:1])  # which says so
                raise
            return features if isinstance(features, Tensor) else model.features(images)

        return _Computed(lambda index, view: data.pixels.fetch(index), compute)

    def _from_maps(self, maps: Store, behind: nn.Module) -> _Computed:
        folded = self._folded.setdefault(behind, Folded(behind))
        return _Computed(maps.fetch, lambda rows, index, view: folded(rows))

    def _filled(
        self,
        trainer: L.Trainer,
        model: Classifier,
        trunk: nn.Module,
        part: Part,
        views: list[int],
        compute: _Computed,
    ) -> Store | None:
        """Open the store of a trunk with all that a part is seen in; None where it cannot be written."""
        data, agreed = trainer.datamodule, trainer.strategy.reduce_boolean_decision  # type: ignore[attr-defined]
        if (trunk, part) in self._unwritten:  # found out and said in an earlier stage of the run
            return None

        def missing(store: Store) -> list[tuple[int, int]]:
            return store.missing(data.split.indices(part), views)

        problem: OSError | UntoldError | None = None
        try:
            if trunk not in self._opened:  # once a run: gigabytes are read and checked
                self._opened[trunk] = _open(trainer, model, data, trunk)
            store = self._opened[trunk]
        except (OSError, UntoldError) as error:
            problem = error
        if agreed(problem is None, all=True):
            # What the first lacks, for all: one that opened the store later may have found what others wrote meanwhile.
            wanted = trainer.strategy.broadcast(missing(store))
            try:
                _fill(trainer, model.device, store, wanted, compute, _STAGES[part])
            except OSError as error:
                problem = error
        if agreed(problem is None, all=True):
            store.open()
            if agreed(not missing(store), all=True):
                return store
        if not any(trunk is known for known, _ in self._unwritten):  # said once, not once a part of the split
            reason = ", which could not be written" + (" whole" if problem is None else f": {problem}")
            if isinstance(problem, UntoldError):
                reason = f", since its frozen network cannot be told from others: {problem}"
            what = "a feature store" if trunk is model.trunk else "the maps of --store_maps_before"
            rank_zero_warn(f"training goes on without {what}{reason}")
        self._unwritten.add((trunk, part))
        return None


def _fill(
    trainer: L.Trainer,
    device: torch.device,
    store: Store,
    wanted: list[tuple[int, int]],
    features: _Computed,
    stage: tuple[str, str],
) -> None:
    """Compute rows and write them, by all processes together, which is progress of a stage.

    While a device computes a batch, the next is read, and the file before is written.

    Raises:
        OSError: They could not be written, or would not all find room; the disk is then not filled with some of them.
    """
    if not wanted:
        return
    mine = range(0, len(wanted), _AT_ONCE)[trainer.global_rank :: trainer.world_size]
    files = [torch.tensor(wanted[start : start + _AT_ONCE]) for start in mine]
    batches = [batch for rows in files for batch in rows.split(_BATCH if device.type == "cpu" else _ACCELERATED_BATCH)]
    bar = Progress(None, *stage, total=len(wanted), disable=trainer.global_rank > 0)
    compute = HalvedBatches(lambda rows, index, view: features.compute(rows.to(device, non_blocking=True), index, view))

    def read(batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        index, view = batch.unbind(1)
        rows = features.read(index, view)
        return rows.pin_memory() if device.type == "cuda" else rows, index, view

    def write(rows: Tensor, parts: list[Tensor]) -> None:
        index, view = rows.unbind(1)
        store.write(index, view, torch.cat(parts).cpu())

    with (
        torch.inference_mode(),
        trainer.precision_plugin.forward_context(),
        bar,
        ThreadPoolExecutor(2) as pool,  # one reads, one writes
    ):
        ahead = bounded_map(lambda batch: pool.submit(read, batch), batches, ahead=2)
        written: Future[None] | None = None
        for rows in files:
            parts: list[Tensor] = []
            while sum(map(len, parts)) < len(rows):
                parts.append(compute(*next(ahead)))
                bar.update(len(parts[-1]) * trainer.world_size)
            if written is not None:
                written.result()
            elif parts[0][0].nbytes * len(wanted) > shutil.disk_usage(store.folder).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(store.folder))
            written = pool.submit(write, rows, parts)
        if written is not None:
            written.result()


def _open(trainer: L.Trainer, model: Classifier, data: ImageData, trunk: nn.Module) -> Store:
    parts: tuple[Part, ...] = ("train", "val", "test")
    identity = trainer.strategy.broadcast(data.augmentation_identity)  # that of a set may differ between processes
    keys = {view: _view_key(identity, view) for part in parts for view in _views_to_store(data, part) or []}
    return Store(data.cache_dir / "features" / _trunk_key(trainer, model, data, trunk), data.keys, keys)


def _trunk_key(trainer: L.Trainer, model: Classifier, data: ImageData, trunk: nn.Module) -> str:
    """Name what a clean image's features depend on, apart from the image."""
    settings = f"{trainer.precision} {data.square.identity} {PIL.__version__}"
    if data.value_range:
        settings += f" {data.value_range}"
    if has_norms(trunk):
        settings += " fused"
    ours = type(model).__module__.startswith("kth_lightning.")
    network = fingerprint(model.preprocess, trunk, built_by_name=ours)
    return hashlib.sha256(settings.encode() + network).hexdigest()[:24]


def _views_to_store(data: ImageData, part: Part) -> list[int] | None:
    views = data.views_of(part)
    if views is None or views == [CLEAN] or data.augmentation_identity is not None:
        return [*views, MIRRORED] if views and part != "train" and data.tta_flip else views
    return None


def _view_key(augmentation: str | None, view: int) -> int:
    """Return a number for a view that is the same in every run that draws it alike."""
    if view in (CLEAN, MIRRORED):
        return view
    return int.from_bytes(hashlib.sha256(f"{augmentation} {view}".encode()).digest()[:8]) >> 1
