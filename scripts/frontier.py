"""Measure what recipes cost and what they are worth, over folds and split seeds, and say which is the default.

    python scripts/frontier.py runs/frontier --time -- --data.archive animal_database.tar.gz

Every recipe is trained on every fold of every split seed, by `compare`; with --time, on one fold from bare images with
an empty cache as well, which is its cost. Repeated, the command goes on where it stopped. It writes frontier.csv,
frontier.md and frontier.png into the folder.

The rule, which looks at validation images alone: the default is the cheapest recipe whose validation cross-entropy is
within one standard error, over folds and split seeds, of the lowest one, paired by fold and seed. Recipes are on the
frontier where none that costs less has a lower one.
"""

import argparse
import csv
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


CLEAN = {"augmentation": "none", "views": 1}
RECIPES = {
    "lite0-224": recipe("best", 224, "tf_efficientnet_lite0"),
    "lite0-288": recipe("best", 288, "tf_efficientnet_lite0"),
    "lite1-288": recipe("best", 288, "tf_efficientnet_lite1"),
    "lite1-352": recipe("best", 352, "tf_efficientnet_lite1"),
    "lite2-288": recipe("best", 288, "tf_efficientnet_lite2"),
    "lite2-352": recipe("best", 352, "tf_efficientnet_lite2"),
    "lite2-352-squash": recipe("best", 352, "tf_efficientnet_lite2", resize="squash"),
    "lite2-352-no-mirror": recipe("best", 352, "tf_efficientnet_lite2", tta_flip=False),
    "lite2-352-batch-40": recipe("best", 352, "tf_efficientnet_lite2", batch_size=40),
    "lite2-352-3-views": recipe("best", 352, "tf_efficientnet_lite2", augmentation="standard", views=3),
    "lite2-448": recipe("best", 448, "tf_efficientnet_lite2"),
    "vgg19-224": recipe("head", 224, **CLEAN),
    "vgg19-288": recipe("head", 288, **CLEAN),
    "vgg19-352": recipe("head", 352, **CLEAN),
    "vgg19-352-batch-40": recipe("head", 352, **CLEAN, batch_size=40),
    "vgg19-352-3-views": recipe("head", 352, augmentation="standard", views=3),
}


@dataclass(frozen=True)
class Measured:
    """Hold what a recipe gave, each figure [folds x seeds] in the same order.

    Attributes:
        name: Of the recipe.
        seconds: From bare images to the report, or None.
        val_acc: Validation accuracy.
        val_loss: Validation cross-entropy.
        right: Number of test images named right.
        tested: Number of test images.
        seeds: Number of split seeds.
    """

    name: str
    seconds: float | None
    val_acc: np.ndarray
    val_loss: np.ndarray
    right: np.ndarray
    tested: np.ndarray
    seeds: int


def main() -> int:
    """Train, measure and judge; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog="Flags of the images, such as --data.root DIR, follow behind --.",
    )
    parser.add_argument("folder", type=Path, help="of all runs and results; a repeated command goes on in it")
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES), help="which (all)")
    parser.add_argument("--folds", type=int, default=5, help="of the cross-validation (5)")
    parser.add_argument("--seeds", type=int, default=3, help="of the split (3)")
    parser.add_argument("--time", action="store_true", help="measure the cost too; leave the machine alone meanwhile")
    words = sys.argv[1:]
    mark = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:mark])
    options.data = words[mark + 1 :]
    options.folder.mkdir(parents=True, exist_ok=True)
    files = [_write_recipe(options.folder, name) for name in options.recipes]
    for seed in range(options.seeds):
        _compare(options, files, seed)
    seconds = {file.stem: _seconds(options, file) for file in files}
    measured = [_measured(options, name, seconds[name]) for name in options.recipes]
    _write(options.folder, measured)
    return 0


def _write_recipe(folder: Path, name: str) -> Path:
    file = folder / "recipes" / f"{name}.yaml"
    file.parent.mkdir(exist_ok=True)
    write_atomically(yaml.safe_dump(RECIPES[name], sort_keys=False), file)
    return file


def _compare(options: argparse.Namespace, files: list[Path], seed: int) -> None:
    """Train what is missing, recipe by recipe: a comparison takes only the recipes that it began with."""
    for file in files:
        folder = options.folder / file.stem / f"split-{seed}"
        if (folder / "table.md").exists():
            continue
        flags = ["--folds", str(options.folds), "--data.split_seed", str(seed), "--run_dir", str(folder)]
        _run("compare", "--models", str(file), *flags, *options.data)


def _seconds(options: argparse.Namespace, file: Path) -> float | None:
    """Return what one fold takes from bare images, imports and report included."""
    known = options.folder / file.stem / "seconds.json"
    if options.time and not known.exists():
        with tempfile.TemporaryDirectory() as empty:
            flags = ["--data.num_folds", str(options.folds), "--data.fold", "0", "--data.cache_dir", f"{empty}/cache"]
            begin = time.perf_counter()
            _run("fit", "--config", str(file), *flags, "--run_dir", f"{empty}/run", *options.data)
            write_atomically(json.dumps(time.perf_counter() - begin), known)
    return json.loads(known.read_text(encoding="utf-8")) if known.exists() else None


def _run(*words: str) -> None:
    command = [sys.executable, "-m", "kth_lightning", *words]
    print("$", *command, flush=True)
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"stopped: {' '.join(command)} failed; its reason stands above")


def _measured(options: argparse.Namespace, name: str, seconds: float | None) -> Measured:
    runs = []
    for seed in range(options.seeds):
        for fold in range(options.folds):
            file = options.folder / name / f"split-{seed}" / f"fold-{fold}" / name / "metrics.json"
            runs.append(json.loads(file.read_text(encoding="utf-8")))
    tested = np.array([run["test"]["n"] for run in runs])
    right = np.array([round(run["test"]["n"] * run["test"]["acc"]["value"]) for run in runs])
    acc, loss = (np.array([run["val"][figure] for run in runs]) for figure in ("acc", "loss"))
    return Measured(name, seconds, acc, loss, right, tested, options.seeds)


def _write(folder: Path, measured: list[Measured]) -> None:
    best = min(measured, key=lambda item: item.val_loss.mean())
    rows = []
    for item in measured:
        worse = item.val_loss - best.val_loss
        error = worse.std(ddof=1) / len(worse) ** 0.5
        wrong = (item.tested - item.right).reshape(item.seeds, -1).sum(1)
        rows.append({
            "recipe": item.name,
            "seconds": item.seconds,
            "val_acc": item.val_acc.mean(),
            "val_loss": item.val_loss.mean(),
            "worse_by": worse.mean(),
            "standard_error": error,
            "within": bool(worse.mean() <= error),
            "test_acc": item.right.sum() / item.tested.sum(),
            "test_wrong": " ".join(str(number) for number in wrong),
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
    for row in rows:
        kept = row["frontier"]
        axes.plot(row["seconds"], row["val_loss"], "o", color="tab:blue" if kept else "0.6")
        axes.annotate(row["recipe"], (row["seconds"], row["val_loss"]), (5, 3), textcoords="offset points", fontsize=8)
    front = sorted((row["seconds"], row["val_loss"]) for row in rows if row["frontier"])
    axes.plot(*zip(*front, strict=True), color="tab:blue", linewidth=1)
    axes.set(
        xscale="log", yscale="log", xlabel="seconds from bare images to the report", ylabel="validation cross-entropy"
    )
    save(figure, file)


if __name__ == "__main__":
    sys.exit(main())
