"""Measure what the shape of the square is worth (`--data.resize`), on validation images, and say which is the default.

    python scripts/shapes.py runs/shapes --archive animal_database.tar.gz

Two recipes, configs/best.yaml and the head on VGG19 of configs/head.yaml (at 224 px, on clean images and without their
mirror images, which costs least), are trained on every fold in every shape (scripts/head_trial.py). The test images are
not looked at. It writes shapes.csv and shapes.md into the folder.

The rule: another shape than squash becomes the default only where in both recipes its validation cross-entropy is lower
by more than one standard error of the differences, paired by fold. How well maps find the animals that masks show is
measured on validation images too, and chooses nothing.
"""

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from head_trial import try_head
from tabulate import tabulate

from kth_lightning.data.square import RESIZES, SQUASH
from kth_lightning.evaluation.localisation import localise
from kth_lightning.io.atomic_file import write_atomically

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RECIPES: dict[str, dict[str, Any]] = {
    "best": {},
    "head": {"image_size": 224, "augmentation": "none", "tta_flip": False},
}
MAPS = ("pointing", "iou_mask", "iou_box")


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
    recipe["data"] |= RECIPES[name] | {"views": 0, "resize": resize}
    trial = try_head(recipe, options.precision, archive=options.archive, num_folds=options.folds, fold=fold)
    figures, images = {"val_loss": trial.val_loss, "val_acc": trial.val_acc}, trial.data
    shown = images.split.indices("val").tolist()
    found = localise(trial.model, images.catalogue, shown, options.maps) if options.maps else None
    figures |= {key: found.summary[key]["value"] for key in MAPS} if found else {}
    print(name, resize, "fold", fold, {key: round(value, 4) for key, value in figures.items()}, flush=True)
    return figures


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
