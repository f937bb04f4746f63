"""Measure what each choice of `--data.balance` is worth on a long-tailed draw of KTH-ANIMALS.

    python scripts/long_tail.py --archive animal_database.tar.gz --output runs/long-tail

In each fold the classes are put into an order by seed, and of the training images of each are drawn, by the same seed,
80 of the first class down to 5 of the last, by the same factor from class to class; of a class that has fewer, all.
Validation and test images stay whole. `configs/best.yaml` is trained on the draw with every choice, and the first of
the list, which is ordered from the simplest, is recommended whose macro recall on the validation images, at the best
epoch, lies within one standard error of the highest: that of their difference over the draws.

What is in the output folder already is not trained again. The tables are printed, and written to long_tail.json.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tabulate

from kth_lightning import ImageData
from kth_lightning.cli.main import main as command
from kth_lightning.data.split_table import split_rows
from kth_lightning.evaluation.statistics import per_class
from kth_lightning.io.csv_text import csv_text
from kth_lightning.io.run_folder import RunFolder, write_atomically
from kth_lightning.io.split_file import SplitRow, read_split, write_split

MOST, FEWEST = 80, 5
VALIDATION = 180  # as KTH-ANIMALS has it, whichever source the images come from
RECIPE = Path(__file__).parents[1] / "configs" / "best.yaml"
CHOICES = {
    "none": ["none"],
    "inverse": ["inverse"],
    "effective, beta 0.9": ["effective", "--data.balance_beta", "0.9"],
    "effective, beta 0.99": ["effective", "--data.balance_beta", "0.99"],
    "sampling": ["sampling"],
}


@dataclass(frozen=True)
class Trained:
    """Hold what a choice came to, a row a draw: macro recalls [R], accuracies [R], and recalls of thirds [R, 3]."""

    validation: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]
    thirds: npt.NDArray[np.float64]


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--archive", required=True, help="The archive of KTH-ANIMALS.")
    parser.add_argument("--output", type=Path, required=True, help="Folder for all that is trained.")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1, help="Draws of the long tail in every fold.")
    options = parser.parse_args()
    output = options.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    table, draws = write_table(options.archive, output / "labels.csv"), []
    for seed in range(options.seeds):
        for fold in range(options.folds):
            folder = output / f"seed-{seed}" / f"fold-{fold}"
            folder.mkdir(parents=True, exist_ok=True)
            data = ImageData(table=str(table), val_size=VALIDATION, num_folds=options.folds, fold=fold)
            whole = split_rows(data.catalogue, data.split)
            write_split(long_tail(whole, seed * options.folds + fold), folder / "splits.csv")
            for choice, flags in CHOICES.items():
                train(folder / name_of(choice), folder / "splits.csv", table, flags)
            draws.append(folder)
    found = {choice: read(draws, choice) for choice in CHOICES}
    rows = [row(choice, found) for choice in CHOICES]
    recommended = recommend(found)
    write_atomically(
        json.dumps({"draws": len(draws), "choices": rows, "recommended": recommended}, indent=2) + "\n",
        output / "long_tail.json",
    )
    print(tabulate.tabulate(rows, headers="keys", tablefmt="github", floatfmt=".1f"))
    print(f"recommended by the validation images: {recommended}")


def long_tail(rows: list[SplitRow], seed: int) -> list[SplitRow]:
    """Leave training images out until their numbers fall from class to class by the same factor."""
    rng = np.random.default_rng(seed)
    names = rng.permutation(sorted({row.label for row in rows}))
    kept: set[int] = set()
    for wanted, name in zip(np.geomspace(MOST, FEWEST, len(names)).round().astype(int), names, strict=True):
        own = [position for position, row in enumerate(rows) if row.part == "train" and row.label == name]
        kept.update(rng.permutation(own)[:wanted].tolist())
    return [
        row._replace(part="unused") if row.part == "train" and position not in kept else row
        for position, row in enumerate(rows)
    ]


def name_of(choice: str) -> str:
    """Return the name of a choice's folder."""
    return choice.replace(", beta ", "-")


def write_table(archive: str, file: Path) -> Path:
    """Write the archive's images as a table of labels: without masks, by which every run would measure its maps."""
    catalogue = ImageData(archive=archive).catalogue
    rows = [(str(catalogue.file(number)), image.label) for number, image in enumerate(catalogue.images)]
    write_atomically(csv_text([("path", "label"), *rows]), file)
    return file


def train(folder: Path, splits: Path, table: Path, balance: list[str]) -> None:
    """Carry out `fit`, unless the folder holds the run already."""
    if not RunFolder(folder).finished:
        flags = ["--data.table", str(table), "--data.splits", str(splits), "--data.balance", *balance]
        command(["fit", "--config", str(RECIPE), "--run_dir", str(folder), *flags])


def read(draws: list[Path], choice: str) -> Trained:
    """Read what a choice came to on every draw."""
    runs = [RunFolder(folder / name_of(choice)) for folder in draws]
    metrics = [run.read_metrics() for run in runs]
    return Trained(
        np.array([item["val"]["recall"] for item in metrics]),
        np.array([item["test"]["recall"]["value"] for item in metrics]),
        np.array([item["test"]["acc"]["value"] for item in metrics]),
        np.array([thirds(run) for run in runs]),
    )


def thirds(run: RunFolder) -> list[float]:
    """Return the mean recall of the third of the classes with most training images, of the next, and of the rest."""
    predictions = run.read_predictions()
    recall = per_class(predictions.labels, predictions.probabilities).recall
    parts = [(item.label, item.part) for item in read_split(run.splits)]
    order = sorted(range(len(recall)), key=lambda number: -parts.count((predictions.class_names[number], "train")))
    return [float(recall[part].mean()) for part in np.array_split(order, 3)]


def row(choice: str, found: dict[str, Trained]) -> dict[str, Any]:
    """Return a choice's row of the table, in per cent, with differences from no balancing and their standard errors."""
    own, none = found[choice], found["none"]
    cells: dict[str, Any] = {"balance": choice, "validation: macro recall": 100 * own.validation.mean()}
    for name, values, base in (
        ("macro recall", own.recall, none.recall),
        ("accuracy", own.accuracy, none.accuracy),
        ("third with fewest", own.thirds[:, 2], none.thirds[:, 2]),
        ("third with most", own.thirds[:, 0], none.thirds[:, 0]),
    ):
        cells[name] = 100 * values.mean()
        cells[f"{name}: difference"] = "" if own is none else difference(values, base)
    return cells


def difference(values: npt.NDArray[np.float64], base: npt.NDArray[np.float64]) -> str:
    """Write the mean of paired differences in points, and its standard error."""
    apart = 100 * (values - base)
    return f"{apart.mean():+.1f} ± {standard_error(apart):.1f}"


def standard_error(values: npt.NDArray[np.float64]) -> float:
    """Return the standard error of a mean."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def recommend(found: dict[str, Trained]) -> str:
    """Return the first choice within one standard error of the best, by the validation images."""
    best = max(found.values(), key=lambda item: float(item.validation.mean())).validation
    for choice, own in found.items():
        behind = best - own.validation
        if behind.mean() <= standard_error(behind):
            return choice
    raise AssertionError("the best is within any distance of itself")


if __name__ == "__main__":
    main()
