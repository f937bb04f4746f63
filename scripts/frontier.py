"""Measure what recipes of heads cost and what they are worth, over folds and split seeds, and say which is the default.

    python scripts/frontier.py runs/frontier --archive animal_database.tar.gz
    python scripts/frontier.py runs/frontier --archive animal_database.tar.gz --time

Every recipe is trained on every fold of every split seed (scripts/head_trial.py; no test image is looked at). With
--time, the command `fit` carries each out once, on fold 0 from bare images with an empty cache, which is its cost.
Repeated, it goes on where it stopped. It writes frontier.csv, frontier.md and frontier.png into the folder.

The rule, which looks at validation images alone: the default is the cheapest recipe whose validation cross-entropy is
within one standard error, over folds and split seeds, of the lowest one, paired by fold and seed. Recipes are on the
frontier where none that costs less has a lower one.
"""

import argparse
import csv
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from head_trial import try_head
from matplotlib.figure import Figure
from tabulate import tabulate

from kth_lightning.drawing.figures import save
from kth_lightning.io.atomic_file import write_atomically

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def recipe(base: str, size: int, backbone: str | None = None, **data: Any) -> dict[str, Any]:
    """Return a recipe of configs/ with other images and, where one is named, another backbone."""
    content = yaml.safe_load((CONFIGS / f"{base}.yaml").read_text(encoding="utf-8"))
    content["data"] |= {"image_size": size, **data}
    if backbone:
        content["model"]["init_args"]["backbone"] = backbone
    return content


def in_batches(content: dict[str, Any], size: int) -> dict[str, Any]:
    """Return a recipe that goes as far in an epoch by batches of another size: as many epochs are averaged."""
    scale = size / content["data"]["batch_size"]
    content["data"]["batch_size"] = size
    content["model"]["init_args"]["optimizer"]["init_args"]["lr"] *= scale
    content["ema_decay"] = 1 - (1 - content["ema_decay"]) * scale
    return content


RECIPES = {
    "lite0-224": recipe("best", 224, "tf_efficientnet_lite0"),
    "lite0-288": recipe("best", 288, "tf_efficientnet_lite0"),
    "lite1-288": recipe("best", 288, "tf_efficientnet_lite1"),
    "lite1-352": recipe("best", 352, "tf_efficientnet_lite1"),
    "lite2-288": recipe("best", 288, "tf_efficientnet_lite2"),
    "lite2-352": recipe("best", 352, "tf_efficientnet_lite2"),
    "lite2-352-squash": recipe("best", 352, "tf_efficientnet_lite2", resize="squash"),
    "lite2-352-no-mirror": recipe("best", 352, "tf_efficientnet_lite2", tta_flip=False),
    "lite2-352-batch-20": in_batches(recipe("best", 352), 20),
    "lite2-352-batch-160": in_batches(recipe("best", 352), 160),
    "lite2-352-3-views": recipe("best", 352, "tf_efficientnet_lite2", augmentation="standard", views=3),
    "lite2-448": recipe("best", 448, "tf_efficientnet_lite2"),
    "vgg19-224": recipe("head", 224),
    "vgg19-288": recipe("head", 288),
    "vgg19-352": recipe("head", 352),
    "vgg19-288-batch-20": in_batches(recipe("head", 288), 20),
    "vgg19-352-3-views": recipe("head", 352, augmentation="standard", views=3),
}


@dataclass(frozen=True)
class Measured:
    """Hold what a recipe gave, each figure [seeds x folds] in the same order.

    Attributes:
        name: Of the recipe.
        seconds: From bare images to the report, or None.
        val_acc: Validation accuracy.
        val_loss: Validation cross-entropy.
    """

    name: str
    seconds: float | None
    val_acc: np.ndarray
    val_loss: np.ndarray


def main() -> int:
    """Train, measure and judge; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="of all results; a repeated command goes on in it")
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument("--archive", help="the images: KTH-ANIMALS' archive")
    images.add_argument("--root", help="or a folder with one folder a class")
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES), help="which (all)")
    parser.add_argument("--folds", type=int, default=5, help="of the cross-validation (5)")
    parser.add_argument("--seeds", type=int, default=3, help="of the split (3)")
    parser.add_argument("--val_size", type=int, help="validation images of a fold; the more, the fewer train")
    parser.add_argument("--precision", default="bf16-mixed", help="of the features, as of --trainer.precision")
    parser.add_argument("--time", action="store_true", help="measure the cost too; leave the machine alone meanwhile")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    measured = [_measured(options, name) for name in options.recipes]
    _write(options.folder, measured)
    return 0


def _file(options: argparse.Namespace, name: str) -> Path:
    """Name the file of a recipe's results after all that they depend on beside the images."""
    settings = json.dumps([RECIPES[name], options.val_size, options.precision], sort_keys=True)
    return Path(options.folder) / f"{name}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}.json"


def _measured(options: argparse.Namespace, name: str) -> Measured:
    known = _file(options, name)
    trials: dict[str, list[float]] = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {}
    where = {"archive": options.archive, "root": options.root, "num_folds": options.folds}
    where |= {} if options.val_size is None else {"val_size": options.val_size}
    wanted = {
        f"seed {seed} fold {fold} of {options.folds}": {"split_seed": seed, "fold": fold}
        for seed in range(options.seeds)
        for fold in range(options.folds)
    }
    for key, split in wanted.items():
        if key not in trials:
            trial = try_head(RECIPES[name], options.precision, **where, **split)
            trials[key] = [trial.val_loss, trial.val_acc]
            print(name, key, *(round(figure, 4) for figure in trials[key]), flush=True)
            write_atomically(json.dumps(trials, indent=1), known)
    loss, acc = np.array([trials[key] for key in wanted]).T
    return Measured(name, _seconds(options, name), acc, loss)


def _seconds(options: argparse.Namespace, name: str) -> float | None:
    """Return what one fold takes the command from bare images, imports and report included."""
    known = _file(options, name).with_suffix(".seconds.json")
    if options.time and not known.exists():
        with tempfile.TemporaryDirectory() as empty:
            file = Path(empty) / f"{name}.yaml"
            file.write_text(yaml.safe_dump(RECIPES[name], sort_keys=False), encoding="utf-8")
            images = ["--data.archive", options.archive] if options.archive else ["--data.root", options.root]
            split = ["--data.num_folds", str(options.folds), "--data.fold", "0", "--data.cache_dir", f"{empty}/cache"]
            split += ["--trainer.precision", options.precision]
            split += [] if options.val_size is None else ["--data.val_size", str(options.val_size)]
            begin = time.perf_counter()
            _run("fit", "--config", str(file), *images, *split, "--run_dir", f"{empty}/run")
            write_atomically(json.dumps(time.perf_counter() - begin), known)
    return json.loads(known.read_text(encoding="utf-8")) if known.exists() else None


def _run(*words: str) -> None:
    command = [sys.executable, "-m", "kth_lightning", *words]
    print("$", *command, flush=True)
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"stopped: {' '.join(command)} failed; its reason stands above")


def _write(folder: Path, measured: list[Measured]) -> None:
    best = min(measured, key=lambda item: item.val_loss.mean())
    rows = []
    for item in measured:
        worse = item.val_loss - best.val_loss
        error = worse.std(ddof=1) / len(worse) ** 0.5
        rows.append({
            "recipe": item.name,
            "seconds": item.seconds,
            "val_acc": item.val_acc.mean(),
            "val_loss": item.val_loss.mean(),
            "worse_by": worse.mean(),
            "standard_error": error,
            "within": bool(worse.mean() <= error),
        })  # fmt: skip
    timed = [row for row in rows if row["seconds"] is not None]
    for row in rows:
        cheaper = [other["val_loss"] for other in timed if other["seconds"] < (row["seconds"] or 0)]
        row["frontier"] = row["seconds"] is not None and all(row["val_loss"] < loss for loss in cheaper)
    with (folder / "frontier.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    table = tabulate(rows, headers="keys", tablefmt="github", floatfmt=".4f")
    write_atomically(table + "\n", folder / "frontier.md")
    print(table)
    if timed:
        _draw(folder / "frontier.png", timed)
        chosen = min((row for row in timed if row["within"]), key=lambda row: row["seconds"], default=None)
        print("The default by the rule:", chosen["recipe"] if chosen else "none of those with a measured cost")


def _draw(file: Path, rows: list[dict[str, Any]]) -> None:
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(sorted(rows, key=lambda row: row["val_loss"])):
        point, kept = (row["seconds"], row["val_loss"]), row["frontier"]
        axes.plot(*point, "o", color="tab:blue" if kept else "0.6")
        axes.annotate(row["recipe"], point, (5, (3, -9)[place % 2]), textcoords="offset points", fontsize=8)
    front = sorted((row["seconds"], row["val_loss"]) for row in rows if row["frontier"])
    axes.plot(*zip(*front, strict=True), color="tab:blue", linewidth=1)
    axes.set(
        xscale="log", yscale="log", xlabel="seconds from bare images to the report", ylabel="validation cross-entropy"
    )
    axes.margins(x=0.2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}")
    save(figure, file)


if __name__ == "__main__":
    sys.exit(main())
