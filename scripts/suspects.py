"""Measure how well `compare --folds` finds wrong labels, and what they cost, on KTH-ANIMALS with flipped labels.

    python scripts/suspects.py --archive animal_database.tar.gz --output runs/suspects

Shares of the labels are flipped by seed: to any other class at random, or to the class that is most similar (to which
models that have not seen a class's images give the most probability beside it). `compare --models best --folds K` ranks
all images; of the first n rows, n the number of flips, so many are flips. Then these n rows are marked as somebody does
who looks at them (a flip gets its true label, anything else is kept), the table is given back with
`--data.corrections`, and the folds are trained again. Accuracies are of the true labels, each image tested once over
the folds.

What is in the output folder already is not trained again. The table is printed, and written to suspects.json.
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

from kth_lightning import ImageData
from kth_lightning.evaluation.statistics import accuracy_interval
from kth_lightning.evaluation.suspects import rank_suspects
from kth_lightning.io.csv_text import csv_rows, csv_text
from kth_lightning.io.run_folder import RunFolder, write_atomically

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

    def indices(self, labels: Labels) -> npt.NDArray[np.int64]:
        """Return the index of each image's class, shape [N]."""
        return np.array([self.class_names.index(labels[path]) for path in self.paths])

    def right(self, truth: Labels) -> int:
        """Count the images that are named rightly."""
        return int((self.probabilities.argmax(axis=1) == self.indices(truth)).sum())


def self_confidence(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return how little probability the label has."""
    return 1 - probabilities[np.arange(len(labels)), labels]


def weighted_entropy(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the label's probability over the entropy, turned around (cleanlab's confidence_weighted_entropy)."""
    entropy = -(probabilities * np.log(probabilities.clip(1e-12))).sum(axis=1) / np.log(probabilities.shape[1])
    return -probabilities[np.arange(len(labels)), labels] / entropy.clip(1e-6)


RANKINGS: dict[str, Score] = {
    "margin": lambda labels, probabilities: rank_suspects(labels, probabilities).score,
    "self-confidence": self_confidence,
    "weighted entropy": weighted_entropy,
}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--archive", required=True, help="The archive of KTH-ANIMALS.")
    parser.add_argument("--output", type=Path, required=True, help="Folder for all that is trained.")
    parser.add_argument("--folds", type=int, default=5, help="Of every comparison.")
    parser.add_argument("--seeds", type=int, default=1, help="How many times labels are flipped.")
    parser.add_argument("--correct", type=float, nargs="*", default=[0.1], help="Shares of flips to train corrected.")
    options = parser.parse_args()
    output = options.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    catalogue = ImageData(archive=options.archive).catalogue
    truth = {str(catalogue.file(number)): image.label for number, image in enumerate(catalogue.images)}

    folds = ["--folds", str(options.folds)]
    compare(output / "clean", "--data.archive", options.archive, *folds)
    clean = read_folds(output / "clean")
    labels = {image.path: image.label for image in catalogue.images}
    similar = most_similar(clean, labels)
    rows = [{"labels": "clean", **accuracy(clean.right(labels), len(labels))}]
    conditions = [(rate, kind, seed) for rate in RATES for kind in KINDS for seed in range(options.seeds)]
    for rate, kind, seed in conditions:
        folder = output / f"{kind}-{100 * rate:.0f}-{seed}"
        rows.append(measure_ranking(folder, truth, similar if kind == "similar" else {}, rate, seed, folds))
    for (rate, _, _), row in zip(conditions, rows[1:], strict=True):
        if rate in options.correct:
            row |= measure_correction(output / str(row["labels"]), truth, int(row["flips"]), folds)
    write_atomically(json.dumps(rows, indent=2) + "\n", output / "suspects.json")
    print(tabulate.tabulate(rows, headers="keys", tablefmt="github", floatfmt=".1f"))


def measure_ranking(
    folder: Path, truth: Labels, similar: Labels, rate: float, seed: int, folds: list[str]
) -> dict[str, Any]:
    """Flip labels, train on them, and count how many flips are in the first rows of each ranking."""
    flipped = flip(truth, similar, rate, seed)
    wrong = {path for path, label in flipped.items() if label != truth[path]}
    folder.mkdir(exist_ok=True)
    write_atomically(csv_text([("path", "label"), *sorted(flipped.items())]), folder / "labels.csv")
    compare(folder / "flipped", "--data.table", str(folder / "labels.csv"), *VALIDATION, *folds)
    found = read_folds(folder / "flipped")
    row: dict[str, Any] = {"labels": folder.name, "flips": len(wrong)}
    for name, score in RANKINGS.items():
        order = np.argsort(-score(found.indices(flipped), found.probabilities), kind="stable")[: len(wrong)]
        row[name] = 100 * float(np.mean([found.paths[position] in wrong for position in order]))
    row |= accuracy(found.right(truth), len(truth))
    print(row, flush=True)
    return row


def measure_correction(folder: Path, truth: Labels, number: int, folds: list[str]) -> dict[str, Any]:
    """Correct what is wrong among the first rows of the table, and train on that."""
    corrections = mark(folder / "flipped/suspects.csv", truth, number, folder / "corrections.csv")
    table = ["--data.table", str(folder / "labels.csv"), "--data.corrections", str(corrections)]
    compare(folder / "corrected", *table, *VALIDATION, *folds)
    mended = accuracy(read_folds(folder / "corrected").right(truth), len(truth))
    return {f"corrected: {name}": value for name, value in mended.items()}


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


def most_similar(found: OutOfFold, labels: Labels) -> Labels:
    """Return for each class the other one that gets the most probability from its images."""
    indices, similar = found.indices(labels), {}
    for number, name in enumerate(found.class_names):
        mean = found.probabilities[indices == number].mean(axis=0)
        mean[number] = 0
        similar[name] = found.class_names[int(mean.argmax())]
    return similar


def flip(truth: Labels, similar: Labels, rate: float, seed: int) -> Labels:
    """Return labels of which a share is another class: the similar one, or where none is given any."""
    rng = np.random.default_rng(seed)
    paths, names = sorted(truth), sorted(set(truth.values()))
    labels = dict(truth)
    for position in rng.permutation(len(paths))[: round(rate * len(paths))]:
        path = paths[position]
        others = [name for name in names if name != truth[path]]
        labels[path] = similar[truth[path]] if similar else str(rng.choice(others))
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
