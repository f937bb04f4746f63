"""What a recipe of a head is worth on validation images: its layers trained in a bare loop on stored features.

Optimiser, schedule, dropout and average of weights are the recipe's. The command's own loop takes many times as long,
and tests; here no test image is looked at.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor

from kth_lightning.callbacks.feature_cache import FeatureCache
from kth_lightning.data.module import ImageData
from kth_lightning.data.split import Part
from kth_lightning.models import FeatureHead
from kth_lightning.models.schedule import Cosine
from kth_lightning.stores.store import MIRRORED


class Trial(NamedTuple):
    """Hold the figures of the best epoch, and the head that has its averaged weights.

    Attributes:
        val_loss: Validation cross-entropy.
        val_acc: Validation accuracy.
        model: In evaluation mode.
        data: Its images.
    """

    val_loss: float
    val_acc: float
    model: FeatureHead
    data: ImageData


class _Features(NamedTuple):
    """Hold what a trunk made of a split: features [N, D], of each view in which images are seen, and labels."""

    train: list[Tensor]
    train_labels: Tensor
    val: list[Tensor]
    val_labels: Tensor


class _TakeFeatures(L.Callback):
    """Have the feature store filled for training and validation images, and take its rows."""

    features: _Features

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the rows."""
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        (train, train_labels), (val, val_labels) = (self._rows(data, part) for part in ("train", "val"))
        self.features = _Features(train, train_labels, val, val_labels)

    def _rows(self, data: ImageData, part: Part) -> tuple[list[Tensor], Tensor]:
        store, index = data.features(part), torch.from_numpy(data.split.indices(part))
        assert store is not None
        views = [*(data.views_of(part) or []), *([MIRRORED] if part == "val" and data.tta_flip else [])]
        return [store.fetch(index, torch.full_like(index, view)).float() for view in views], data.labels[index]


def try_head(recipe: dict[str, Any], precision: str, **data: Any) -> Trial:
    """Train a recipe's head on one split.

    Args:
        recipe: A `FeatureHead`'s, as configs/ have it.
        precision: Of the features, as of --trainer.precision.
        **data: Further settings of `ImageData`: where the images are, and which split is taken.
    """
    images = ImageData(**(recipe["data"] | data))
    of_data = {
        key: getattr(images, key) for key in ("class_names", "image_size", "interpolation", "resize", "tta_flip")
    }
    of_model = {key: value for key, value in recipe["model"]["init_args"].items() if key in ("backbone", "dropout")}
    torch.manual_seed(data.get("fold", 0))
    model, taken = FeatureHead(images.num_classes, **of_model, **of_data), _TakeFeatures()
    trainer = L.Trainer(
        max_steps=1,
        limit_val_batches=0,
        precision=precision,  # type: ignore[arg-type]
        callbacks=[FeatureCache(), taken],
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=images)
    for layer in model.head.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.reset_parameters()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        loss, accuracy = _train(model, taken.features, recipe, images.batch_size)
    finally:
        torch.set_num_threads(threads)
    return Trial(loss, accuracy, model, images)


def _train(model: FeatureHead, features: _Features, recipe: dict[str, Any], batch_size: int) -> tuple[float, float]:
    """Train the layers behind the trunk, and leave the averaged weights of the best epoch in them."""
    parameters = [item for item in model.parameters() if item.requires_grad]
    optimizer = torch.optim.AdamW(parameters, **recipe["model"]["init_args"]["optimizer"]["init_args"], fused=True)
    epochs, labels = recipe["trainer"]["max_epochs"], features.train_labels
    batches = -(-len(labels) // batch_size)
    schedule, averages, step = Cosine(optimizer, epochs * batches), [item.detach().clone() for item in parameters], 0
    best: tuple[float, float, list[Tensor]] | None = None
    for epoch in range(epochs):
        model.train()
        seen = features.train[epoch % len(features.train)]
        for rows in torch.randperm(len(labels)).split(batch_size):
            loss = F.cross_entropy(model.tail(seen[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            for average, item in zip(averages, parameters, strict=True):
                average.lerp_(item.detach(), max(1 - recipe["ema_decay"], 1 / step))
        trained = [item.detach().clone() for item in parameters]
        _put(parameters, averages)
        loss_, accuracy = _validate(model, features)
        if best is None or loss_ < best[0]:
            best = loss_, accuracy, [item.clone() for item in averages]
        _put(parameters, trained)
    assert best is not None
    _put(parameters, best[2])
    model.eval()
    return best[0], best[1]


@torch.no_grad()
def _put(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for item, value in zip(parameters, values, strict=True):
        item.copy_(value)


@torch.no_grad()
def _validate(model: FeatureHead, features: _Features) -> tuple[float, float]:
    model.eval()
    logits = torch.stack([model.tail(item) for item in features.val]).mean(0)
    right = (logits.argmax(1) == features.val_labels).double().mean()
    return float(F.cross_entropy(logits, features.val_labels)), float(right)
