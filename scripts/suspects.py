"""Measure how well `compare --folds` finds wrong labels, and what they cost, on KTH-ANIMALS with flipped labels.

    python scripts/suspects.py --archive animal_database.tar.gz --output runs/suspects

Shares of the labels are flipped by seed: to any other class at random, or to the class that is most similar (to which
models that have not seen a class's images give the most probability beside it). All images are ranked over folds, as
`compare --models best --folds K` ranks them; of the first n rows, n the number of flips, so many are flips.

With the first seed the folds are also trained on the flipped labels. Then the first n rows of suspects.csv are marked
as somebody does who looks at them (a flip gets its true label, anything else is kept), the table is given back with
`--data.corrections`, and the folds are trained again. Accuracies are of the true labels, each image tested once over
the folds.

What is in the output folder already is not trained again. The tables are printed, and written to suspects.json.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tabulate
import torch

from kth_lightning import ImageData
from kth_lightning.evaluation.statistics import accuracy_interval
from kth_lightning.evaluation.suspects import least_squares_likeness, rank_suspects
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.csv_text import csv_rows, csv_text
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.stores.store import CLEAN, Store

RATES = (0.10, 0.03)
KINDS = ("similar", "random")
VALIDATION = ["--data.val_size", "180"]  # as KTH-ANIMALS has it, whichever source the images come from

Labels = dict[str, str]
"""Class of each image, by its path."""

Score = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float64]], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class OutOfFold:
    """Hold what models said about the images that they had not seen: paths [N], classes [C], probabilities [N, C]."""

    paths: list[str]
    class_names: list[str]
    probabilities: npt.NDArray[np.float64]


def self_confidence(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return how little probability the label has."""
    return 1 - probabilities[np.arange(len(labels)), labels]


def weighted_entropy(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the label's probability over the entropy, turned around (cleanlab's confidence_weighted_entropy)."""
    entropy = -(probabilities * np.log(probabilities.clip(1e-12))).sum(axis=1) / np.log(probabilities.shape[1])
    return -probabilities[np.arange(len(labels)), labels] / entropy.clip(1e-6)


RANKINGS: dict[str, Score] = {
    "normalised margin": lambda labels, probabilities: rank_suspects(labels, probabilities).score,
    "self-confidence": self_confidence,
    "weighted entropy": weighted_entropy,
}


@dataclass(frozen=True)
class Data:
    """Hold the images: paths [N], features [N, D], folds [N] of the clean comparison, true classes, and their names."""

    paths: list[str]
    features: npt.NDArray[np.float32]
    folds: npt.NDArray[np.int64]
    truth: Labels
    similar: Labels


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--archive", required=True, help="The archive of KTH-ANIMALS.")
    parser.add_argument("--output", type=Path, required=True, help="Folder for all that is trained.")
    parser.add_argument("--folds", type=int, default=5, help="Of every comparison.")
    parser.add_argument("--seeds", type=int, default=5, help="How many times labels are flipped and ranked.")
    parser.add_argument("--train", nargs="*", default=None, help="Conditions to train on; all by default.")
    options = parser.parse_args()
    output = options.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    folds = ["--folds", str(options.folds)]
    compare(output / "clean", "--data.archive", options.archive, *folds)
    data = read_data(options.archive, output / "clean")
    ranked = [rank(data, rate, kind, options.seeds) for rate in RATES for kind in KINDS]
    print(tabulate.tabulate(ranked, headers="keys", tablefmt="github", floatfmt=".1f"), flush=True)

    clean = read_folds(output / "clean")
    trained = [{"labels": "clean"} | accuracy(right(clean, by_name(clean, data)), len(clean.paths))]
    for rate in RATES:
        for kind in KINDS:
            folder = output / f"{kind}-{100 * rate:.0f}"
            if options.train is None or folder.name in options.train:
                trained.append(train(folder, data, flip(data, rate, kind, seed=0), folds))
            write_atomically(
                json.dumps({"ranked": ranked, "trained": trained}, indent=2) + "\n", output / "suspects.json"
            )
    print(tabulate.tabulate(trained, headers="keys", tablefmt="github", floatfmt=".1f"))


def read_data(archive: str, clean: Path) -> Data:
    """Read what ranks images: the features that a clean comparison stored, and its folds."""
    data = ImageData(archive=archive)
    catalogue = data.catalogue
    runs = [RunFolder(fold / "best") for fold in sorted(clean.glob("fold-*"))]
    store = Store(data.cache_dir / "features" / runs[0].read_metrics()["feature_store"], data.keys, {CLEAN: CLEAN})
    features = store.fetch(torch.arange(len(catalogue.images))).numpy()
    fold_of = {path: fold for fold, run in enumerate(runs) for path in run.read_predictions().paths}
    found = read_folds(clean)
    labels = {image.path: image.label for image in catalogue.images}
    indices = np.array([found.class_names.index(labels[path]) for path in found.paths])
    similar = {}
    for number, name in enumerate(found.class_names):
        mean = found.probabilities[indices == number].mean(axis=0)
        mean[number] = 0
        similar[name] = found.class_names[int(mean.argmax())]
    paths = [str(catalogue.file(number)) for number in range(len(catalogue.images))]
    truth = dict(zip(paths, labels.values(), strict=True))
    folds = np.array([fold_of[image.path] for image in catalogue.images])
    return Data(paths, features, folds, truth, similar)


def rank(data: Data, rate: float, kind: str, seeds: int) -> dict[str, Any]:
    """Flip labels several times, and count how many flips are in the first rows of the ranking."""
    names = sorted(set(data.truth.values()))
    found = []
    for seed in range(seeds):
        flipped = flip(data, rate, kind, seed)
        labels = np.array([names.index(flipped[path]) for path in data.paths])
        order = rank_suspects(labels, least_squares_likeness(data.features, labels, data.folds, len(names))).order
        wrong = np.array([flipped[path] != data.truth[path] for path in data.paths])
        found.append(100 * float(wrong[order[: wrong.sum()]].mean()))
    row = {"flipped": f"{100 * rate:.0f} %, {kind}", "flips": int(wrong.sum()), "mean": float(np.mean(found))}
    return row | {"least": min(found), "most": max(found), "seeds": seeds}


def train(folder: Path, data: Data, flipped: Labels, folds: list[str]) -> dict[str, Any]:
    """Train on flipped labels, and on what the table of suspects corrects of them."""
    wrong = {path for path, label in flipped.items() if label != data.truth[path]}
    folder.mkdir(exist_ok=True)
    write_atomically(csv_text([("path", "label"), *sorted(flipped.items())]), folder / "labels.csv")
    table = ["--data.table", str(folder / "labels.csv"), *VALIDATION, *folds]
    compare(folder / "flipped", *table)
    found = read_folds(folder / "flipped")
    labels = np.array([found.class_names.index(flipped[path]) for path in found.paths])
    row: dict[str, Any] = {"labels": folder.name, "flips": len(wrong)}
    _, *rows = csv_rows((folder / "flipped/suspects.csv").read_text(encoding="utf-8"))
    row["least squares"] = 100 * sum(cells[0] in wrong for cells in rows[: len(wrong)]) / len(wrong)
    for name, score in RANKINGS.items():
        order = np.argsort(-score(labels, found.probabilities), kind="stable")[: len(wrong)]
        row[name] = 100 * float(np.mean([found.paths[position] in wrong for position in order]))
    row |= accuracy(right(found, data.truth), len(found.paths))
    corrections = mark(folder / "flipped/suspects.csv", data.truth, len(wrong), folder / "corrections.csv")
    compare(folder / "corrected", *table, "--data.corrections", str(corrections))
    mended = read_folds(folder / "corrected")
    return row | {
        f"corrected: {name}": value for name, value in accuracy(right(mended, data.truth), len(mended.paths)).items()
    }


def right(found: OutOfFold, truth: Labels) -> int:
    """Count the images that are classified correctly."""
    indices = [found.class_names.index(truth[path]) for path in found.paths]
    return int((found.probabilities.argmax(axis=1) == indices).sum())


def by_name(found: OutOfFold, data: Data) -> Labels:
    """Return the true classes by the paths as the archive's catalogue writes them."""
    return {path: next(data.truth[name] for name in data.paths if name.endswith(f"/{path}")) for path in found.paths}


def compare(folder: Path, *flags: str) -> None:
    """Carry out `compare`; what it prints goes into a file beside the folder."""
    command = [sys.executable, "-m", "kth_lightning", "compare", "--models", "best"]
    with folder.with_suffix(".log").open("w", encoding="utf-8") as log:
        subprocess.run([*command, *flags, "--run_dir", str(folder)], check=True, stdout=log, stderr=log)


def read_folds(folder: Path) -> OutOfFold:
    """Read the predictions of all folds."""
    parts = [RunFolder(fold / "best").read_predictions() for fold in sorted(folder.glob("fold-*"))]
    paths = [path for part in parts for path in part.paths]
    return OutOfFold(paths, parts[0].class_names, np.concatenate([part.probabilities for part in parts]))


def flip(data: Data, rate: float, kind: str, seed: int) -> Labels:
    """Return labels of which a share is another class: the similar one, or any at random."""
    rng = np.random.default_rng(seed)
    paths, names = sorted(data.truth), sorted(set(data.truth.values()))
    labels = dict(data.truth)
    for position in rng.permutation(len(paths))[: round(rate * len(paths))]:
        own = data.truth[paths[position]]
        others = [name for name in names if name != own]
        labels[paths[position]] = data.similar[own] if kind == "similar" else str(rng.choice(others))
    return labels


def mark(table: Path, truth: Labels, number: int, to: Path) -> Path:
    """Decide on the first rows of a table of suspects as somebody does who looks at the images."""
    header, *rows = csv_rows(table.read_text(encoding="utf-8"))
    for row in rows[:number]:
        path, label = row[header.index("path")], row[header.index("label")]
        row[header.index("decision")] = "keep" if truth[path] == label else "relabel"
        row[header.index("suggested")] = truth[path]
    write_atomically(csv_text([header, *rows]), to)
    return to


def accuracy(right: int, total: int) -> dict[str, float | str]:
    """Return an accuracy in per cent, and its 95 % interval."""
    low, high = accuracy_interval(right, total)
    return {"accuracy": 100 * right / total, "interval": f"{100 * low:.1f}–{100 * high:.1f}"}


if __name__ == "__main__":
    main()
