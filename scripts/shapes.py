"""Measure what the shape of the square is worth (`--data.resize`), on validation images, and say which is the default.

    python scripts/shapes.py runs/shapes --archive animal_database.tar.gz

Two recipes, configs/best.yaml and the head on VGG19 of configs/head.yaml (at 224 px, on clean images and without their
mirror images, which costs least), are trained on every fold in every shape. Their layers are trained in a bare loop on
stored features, with the recipe's optimiser, schedule, dropout and average of weights: the command's own loop takes
twenty times as long, and tests. The test images are not looked at. It writes shapes.csv and shapes.md into the folder.

The rule: another shape than squash becomes the default only where in both recipes its validation cross-entropy is lower
by more than one standard error of the differences, paired by fold. How well maps find the animals that masks show is
measured on validation images too, and chooses nothing.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
import yaml
from tabulate import tabulate
from torch import Tensor

from kth_lightning.callbacks.feature_cache import FeatureCache
from kth_lightning.data.module import ImageData
from kth_lightning.data.split import Part
from kth_lightning.data.square import RESIZES, SQUASH
from kth_lightning.evaluation.localisation import localise
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.models import FeatureHead
from kth_lightning.models.schedule import Cosine
from kth_lightning.stores.store import CLEAN, MIRRORED

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RECIPES: dict[str, dict[str, Any]] = {
    "best": {},
    "head": {"image_size": 224, "augmentation": "none", "tta_flip": False},
}
MAPS = ("pointing", "iou_mask", "iou_box")


class Fold(NamedTuple):
    """Hold what a trunk made of a fold's images: features [N, D], of each view in which they are seen, and labels."""

    train: list[Tensor]
    train_labels: Tensor
    val: list[Tensor]
    val_labels: Tensor


class TakeFeatures(L.Callback):
    """Have the feature store filled for training and validation images, and take its rows."""

    fold: Fold

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the rows."""
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        (train, train_labels), (val, val_labels) = (self._rows(data, part) for part in ("train", "val"))
        self.fold = Fold(train, train_labels, val, val_labels)

    def _rows(self, data: ImageData, part: Part) -> tuple[list[Tensor], Tensor]:
        store, index = data.features(part), torch.from_numpy(data.split.indices(part))
        assert store is not None
        views = [CLEAN, MIRRORED] if part == "val" and data.tta_flip else [CLEAN]
        return [store.fetch(index, torch.full_like(index, view)).float() for view in views], data.labels[index]


def main() -> int:
    """Train, measure and judge; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the results")
    parser.add_argument("--archive", required=True, help="KTH-ANIMALS' archive, whose masks measure the maps")
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES), help="which (both)")
    parser.add_argument("--folds", type=int, default=5, help="of the cross-validation (5)")
    parser.add_argument("--maps", type=int, default=40, help="validation images a fold whose maps are measured (40)")
    parser.add_argument("--precision", default="bf16-mixed", help="of the features, as of --trainer.precision")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in options.recipes:
        runs = {resize: [_run(options, name, resize, fold) for fold in range(options.folds)] for resize in RESIZES}
        rows += [_row(name, resize, runs[resize], runs[SQUASH]) for resize in RESIZES]
        _write(options.folder, rows)
    return 0


def _run(options: argparse.Namespace, name: str, resize: str, fold: int) -> dict[str, float]:
    """Train one fold; returns the figures of its best epoch and how well its maps find animals."""
    recipe = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    seen = recipe["data"] | RECIPES[name] | {"views": 0, "resize": resize}
    data = ImageData(archive=options.archive, num_folds=options.folds, fold=fold, **seen)
    of_data = {key: getattr(data, key) for key in ("class_names", "image_size", "interpolation", "resize", "tta_flip")}
    of_model = {key: value for key, value in recipe["model"]["init_args"].items() if key in ("backbone", "dropout")}
    torch.manual_seed(fold)
    model = FeatureHead(data.num_classes, **of_model, **of_data)
    taken = TakeFeatures()
    trainer = L.Trainer(
        max_steps=1,
        limit_val_batches=0,
        precision=options.precision,
        callbacks=[FeatureCache(), taken],
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data)
    for layer in model.head.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.reset_parameters()
    figures = _train(model, taken.fold, recipe, data.batch_size)
    found = localise(model, data.catalogue, data.split.indices("val").tolist(), options.maps) if options.maps else None
    figures |= {key: found.summary[key]["value"] for key in MAPS} if found else {}
    print(name, resize, "fold", fold, {key: round(value, 4) for key, value in figures.items()}, flush=True)
    return figures


def _train(model: FeatureHead, fold: Fold, recipe: dict[str, Any], batch_size: int) -> dict[str, float]:
    """Train the layers behind the trunk, and leave the averaged weights of the best epoch in them."""
    parameters = [item for item in model.parameters() if item.requires_grad]
    optimizer = torch.optim.AdamW(parameters, **recipe["model"]["init_args"]["optimizer"]["init_args"])
    epochs, (features,) = recipe["trainer"]["max_epochs"], fold.train
    batches = -(-len(features) // batch_size)
    schedule, averages, step = Cosine(optimizer, epochs * batches), [item.detach().clone() for item in parameters], 0
    best: tuple[float, float, list[Tensor]] | None = None
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(features)).split(batch_size):
            loss = F.cross_entropy(model.tail(features[rows]), fold.train_labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            for average, item in zip(averages, parameters, strict=True):
                average.lerp_(item.detach(), max(1 - recipe["ema_decay"], 1 / step))
        trained = [item.detach().clone() for item in parameters]
        _put(parameters, averages)
        loss_, accuracy = _validate(model, fold)
        if best is None or loss_ < best[0]:
            best = loss_, accuracy, [item.clone() for item in averages]
        _put(parameters, trained)
    assert best is not None
    _put(parameters, best[2])
    model.eval()
    return {"val_loss": best[0], "val_acc": best[1]}


@torch.no_grad()
def _put(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for item, value in zip(parameters, values, strict=True):
        item.copy_(value)


@torch.no_grad()
def _validate(model: FeatureHead, fold: Fold) -> tuple[float, float]:
    model.eval()
    logits = torch.stack([model.tail(item) for item in fold.val]).mean(0)
    right = (logits.argmax(1) == fold.val_labels).double().mean()
    return float(F.cross_entropy(logits, fold.val_labels)), float(right)


def _row(name: str, resize: str, runs: list[dict[str, float]], squashed: list[dict[str, float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"recipe": name, "resize": resize}
    for figure in ("val_acc", "val_loss"):
        values, others = (np.array([run[figure] for run in some]) for some in (runs, squashed))
        differences = values - others
        row |= {figure: values.mean(), f"{figure}_difference": differences.mean()}
        row[f"{figure}_standard_error"] = differences.std(ddof=1) / len(runs) ** 0.5
    return row | {figure: np.mean([run[figure] for run in runs]) for figure in MAPS if figure in runs[0]}


def _write(folder: Path, rows: list[dict[str, Any]]) -> None:
    with (folder / "shapes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    table = tabulate(rows, headers="keys", tablefmt="github", floatfmt=".4f")
    write_atomically(table + "\n", folder / "shapes.md")
    print(table)
    better = [
        resize
        for resize in RESIZES
        if all(-row["val_loss_difference"] > row["val_loss_standard_error"] for row in rows if row["resize"] == resize)
    ]
    losses = {resize: sum(row["val_loss"] for row in rows if row["resize"] == resize) for resize in better}
    print("The default by the rule:", min(losses, key=losses.__getitem__) if losses else SQUASH)


if __name__ == "__main__":
    sys.exit(main())
