"""Measure how well novelty tells images of classes that a classifier never saw from those that it knows.

    python scripts/novelty.py --ckpt_path runs/best/checkpoints/best.ckpt --data.archive animal_database.tar.gz \
        --features runs/novelty.safetensors --json runs/novelty.json

The trunk of a `FeatureHead` is frozen, so its features are those that it would have if some classes had been left out.
The classes are left out four at a time in turn, in two orders, over five folds. In each fold, the way to measure the
distance is chosen by images that are not tested: training images of the classes that are left in make the summary, and
validation images of these stand against training and validation images of the classes that are left out. The figures
that are reported are those of test images against test images, and against drawn textures and noise. The way that
is chosen is the first of the list, which is ordered from the simplest, whose mean AUROC lies within one standard error
of the highest: that of their difference, over the groups of classes.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tabulate
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.special import logsumexp, softmax
from scipy.stats import mannwhitneyu
from torch.nn import functional
from tqdm import tqdm

from kth_lightning.data.images import read_rgb
from kth_lightning.data.module import ImageData
from kth_lightning.data.split import make_split
from kth_lightning.evaluation.novelty import Novelty
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.models import Classifier
from kth_lightning.models.checkpoint import load_classifier
from kth_lightning.models.embedding import embed_features

FOLDS, ORDERS, LEFT_OUT = 5, 2, 4
BATCH = 32
DRAWN = 100
"""Images of each kind that is drawn."""

Vectors = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Case:
    """Hold what a group of classes leaves of a fold.

    Attributes:
        train: Training vectors, [N, D].
        labels: Of these, [N].
        vectors: Whose distances are wanted, [B, D].
        known: Which of these are of validation images, [B].
    """

    train: Vectors
    labels: npt.NDArray[np.int64]
    vectors: Vectors
    known: npt.NDArray[np.bool_]

    @cached_property
    def logits(self) -> npt.NDArray[np.float32]:
        """Give the logits of a head that was trained on the training images, [B, classes]."""
        torch.manual_seed(0)
        targets = torch.from_numpy(np.searchsorted(np.unique(self.labels), self.labels))
        head = torch.nn.Linear(self.train.shape[1], int(targets.max()) + 1)
        optimizer = torch.optim.AdamW(head.parameters(), lr=0.01, weight_decay=0.1)
        for _ in range(100):
            optimizer.zero_grad()
            functional.cross_entropy(head(torch.from_numpy(self.train)), targets).backward()
            optimizer.step()
        with torch.no_grad():
            return head(torch.from_numpy(self.vectors)).numpy()


Distance = Callable[[Case], npt.NDArray[np.floating]]


def neighbours(count: int, centred: float = 0.0, spread: bool = False) -> Distance:
    """Make the mean cosine distance to the nearest training images.

    Args:
        count: Of them.
        centred: Share of the training images' mean that is taken off first.
        spread: Divide by the root of the mean distance that these neighbours have from theirs.
    """

    def distance(case: Case) -> npt.NDArray[np.float64]:
        centre = centred * case.train.mean(0)
        trained, new = _unit(case.train - centre), _unit(case.vectors - centre)
        cosines = new @ trained.T
        nearest = np.argpartition(-cosines, count, axis=1)[:, :count]
        distances = 1 - np.take_along_axis(cosines, nearest, 1).mean(1)
        if not spread:
            return distances
        among = trained @ trained.T
        np.fill_diagonal(among, -np.inf)
        own = 1 - -np.partition(-among, count, axis=1)[:, :count].mean(1)
        return distances / np.sqrt(own[nearest].mean(1))

    return distance


def gaussian(case: Case) -> npt.NDArray[np.float64]:
    """Return Mahalanobis' distance to the nearest class, of one covariance for all, of which a tenth is its mean."""
    classes = np.unique(case.labels)
    means = np.stack([case.train[case.labels == item].mean(0) for item in classes])
    train, vectors = case.train.astype(np.float64), case.vectors.astype(np.float64)
    rest = train - means[np.searchsorted(classes, case.labels)]
    covariance = rest.T @ rest / len(rest)
    shrunk = 0.9 * covariance + 0.1 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    factor = np.linalg.inv(np.linalg.cholesky(shrunk)).T
    projected = vectors @ factor
    return np.min([((projected - mean @ factor) ** 2).sum(1) for mean in means], axis=0)


def confidence(case: Case) -> npt.NDArray[np.float64]:
    """Return how far the highest probability of a head is from 1."""
    return 1 - softmax(case.logits.astype(np.float64), axis=1).max(1)


def with_energy(weight: float) -> Distance:
    """Make the mean distance to 5 neighbours, less half of the mean, and beside it the energy of a head's logits.

    Each is divided by its standard deviation over the validation images. The energy is less their logsumexp (W. Liu et
    al., "Energy-based Out-of-distribution Detection", 2020).

    Args:
        weight: Of the energy.
    """

    def distance(case: Case) -> npt.NDArray[np.float64]:
        distances = neighbours(5, 0.5)(case)
        energies = -logsumexp(case.logits.astype(np.float64), axis=1)
        return distances / distances[case.known].std() + weight * energies / energies[case.known].std()

    return distance


def as_predicted(case: Case) -> npt.NDArray[np.float32]:
    """Return the novelty that a checkpoint of such a head would tell."""
    vectors, logits = torch.from_numpy(case.vectors), torch.from_numpy(case.logits)
    known = torch.from_numpy(case.known)
    keys = torch.arange(len(case.train))
    fitted = Novelty.fit(torch.from_numpy(case.train), keys, (vectors[known], logits[known]))
    assert fitted is not None
    return fitted(vectors, logits).numpy()


def in_steps(case: Case) -> npt.NDArray[np.float64]:
    """Return that novelty as the plain share of validation images."""
    scores = with_energy(0.5)(case)
    return (scores[:, None] > scores[case.known]).mean(1)


WAYS: dict[str, Distance] = {
    "5 neighbours": neighbours(5),
    "1 neighbour": neighbours(1),
    "10 neighbours": neighbours(10),
    "5 neighbours, less the mean": neighbours(5, 1.0),
    "5 neighbours, less .5 of the mean": neighbours(5, 0.5),
    "5 neighbours, less .3 of the mean": neighbours(5, 0.3),
    "5 neighbours, by their spread": neighbours(5, spread=True),
    "5 neighbours, less the mean, by their spread": neighbours(5, 1.0, spread=True),
    "5 neighbours, less .5 of the mean, by their spread": neighbours(5, 0.5, spread=True),
    "5 neighbours, less .3 of the mean, by their spread": neighbours(5, 0.3, spread=True),
    "one Gaussian a class": gaussian,
}
"""Simplest first."""

PREDICTED = "novelty, as predicted"
WEIGHTS = (0.25, 0.5, 1.0)
"""Of the energy of a head, beside the distance to 5 neighbours, less .5 of the mean."""


def main() -> None:
    """Measure, print the table, and say which way is chosen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt_path", required=True, help="Of a FeatureHead on all classes.")
    parser.add_argument("--data.archive", dest="archive", help="KTH-ANIMALS; downloaded where it is left out.")
    parser.add_argument(
        "--features", type=Path, required=True, help="File for the features; used again if it is there."
    )
    parser.add_argument("--json", type=Path, required=True, help="File for the figures.")
    options = parser.parse_args()
    model = load_classifier(options.ckpt_path)
    seen = {"image_size": model.image_size, "interpolation": model.interpolation, "resize": model.resize}
    data = ImageData(source="kth", archive=options.archive, **seen)
    if not options.features.exists():
        options.features.parent.mkdir(parents=True, exist_ok=True)
        save_file(_features(model, data), options.features)
    vectors = {name: tensor.numpy() for name, tensor in load_file(options.features).items()}
    with_head = {f"and energy, weight {weight:g}": with_energy(weight) for weight in WEIGHTS}
    with_head |= {PREDICTED: as_predicted, "novelty, in steps": in_steps, "head's confidence": confidence}
    rows = list(_measure(WAYS | with_head, data, vectors))
    summary = {name: _summary([row for row in rows if row["way"] == name]) for name in WAYS | with_head}
    means = {name: _by_group([row for row in rows if row["way"] == name], "chosen_by") for name in WAYS}
    best = max(means, key=lambda name: means[name].mean())
    behind = {name: means[best] - item for name, item in means.items()}
    chosen = next(name for name, item in behind.items() if item.mean() <= _standard_error(item))
    figures = {"chosen": chosen, "best": best, "ways": summary, "rows": rows}
    write_atomically(json.dumps(figures, indent=2), options.json)
    columns = [(kind, figure) for kind in ("chosen_by", "classes") for figure in ("mean", "worst")]
    columns += [("textures", "mean"), ("noise", "mean")]
    table = [[name, *(f"{item[kind][figure]:.4f}" for kind, figure in columns)] for name, item in summary.items()]
    header = ["distance", "choosing", "worst group", "tested", "worst group", "textures", "noise"]
    print(tabulate.tabulate(table, header, "github", disable_numparse=True))
    of_orders = [("first_order", "mean"), ("first_order", "worst"), ("second_order", "mean"), ("second_order", "worst")]
    table = [[name, *(f"{summary[name][kind][figure]:.4f}" for kind, figure in of_orders)] for name in summary]
    header = ["distance", "choosing, first order", "worst group", "tested, second order", "worst group"]
    print(tabulate.tabulate(table, header, "github", disable_numparse=True))
    print(f"mean novelty of test images of known classes: {summary[PREDICTED]['known']['mean']:.3f}")
    print(f"highest: {best}; chosen, the simplest within a standard error: {chosen}")


def _unit(vectors: Vectors) -> Vectors:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _measure(ways: dict[str, Distance], data: ImageData, vectors: dict[str, Vectors]) -> Iterator[dict]:
    """Yield the areas under the ROC curve of every fold, group of classes and way."""
    labels = data.labels.numpy()
    orders = [np.random.default_rng(order).permutation(data.num_classes) for order in range(ORDERS)]
    groups = [classes[start : start + LEFT_OUT] for classes in orders for start in range(0, len(classes), LEFT_OUT)]
    others = {kind: vectors[kind] for kind in ("textures", "noise")}
    given = np.concatenate([vectors["images"], *others.values()])
    for fold, (number, group) in tqdm([*product(range(FOLDS), enumerate(groups))]):
        split = make_split(data.catalogue, 180, 0.2, 0, FOLDS, fold)
        out = np.isin(labels, group)
        train, val, test = (np.isin(np.arange(len(labels)), split.indices(part)) for part in ("train", "val", "test"))
        known = np.zeros(len(given), dtype=bool)
        known[: len(labels)] = val & ~out
        case = Case(vectors["images"][train & ~out], labels[train & ~out], given, known)
        for name, way in ways.items():
            distances = way(case)
            of_images, of_others = distances[: len(labels)], np.split(distances[len(labels) :], len(others))

            def area(mask: npt.NDArray[np.bool_], new: Vectors, seen: Vectors = of_images) -> float:
                return float(mannwhitneyu(new, seen[mask]).statistic / (len(new) * mask.sum()))

            yield {
                "way": name,
                "fold": fold,
                "group": number,
                "classes": sorted(data.class_names[item] for item in group),
                "chosen_by": area(val & ~out, of_images[out & ~test]),
                "tested": area(test & ~out, of_images[out & test]),
                "mean_of_known": float(of_images[test & ~out].mean()),
                **{kind: area(test & ~out, new) for kind, new in zip(others, of_others, strict=True)},
            }


def _summary(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Average over folds, then over groups."""
    result = {}
    for kind, name in (("chosen_by", "chosen_by"), ("tested", "classes"), ("textures", "textures"), ("noise", "noise")):
        means = _by_group(rows, kind)
        error = _standard_error(means)
        result[name] = {"mean": float(means.mean()), "standard_error": error, "worst": float(means.min())}
    for kind, name in (("chosen_by", "first_order"), ("tested", "second_order")):
        means = np.split(_by_group(rows, kind), ORDERS)[name == "second_order"]
        result[name] = {"mean": float(means.mean()), "worst": float(means.min())}
    result["known"] = {"mean": float(np.mean([row["mean_of_known"] for row in rows]))}
    return result


def _by_group(rows: list[dict], kind: str) -> Vectors:
    numbers = sorted({row["group"] for row in rows})
    return np.array([np.mean([row[kind] for row in rows if row["group"] == number]) for number in numbers])


def _standard_error(values: Vectors) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


@torch.inference_mode()
def _features(model: Classifier, data: ImageData) -> dict[str, torch.Tensor]:
    """Embed all images, and drawn textures and noise, float32 [N, D] each, in bfloat16 as training does on this CPU."""
    size, rng = model.image_size, np.random.default_rng(0)

    def embedded(images: Iterator[npt.NDArray[np.uint8]], total: int) -> torch.Tensor:
        batches = iter(lambda: list(islice(images, BATCH)), [])
        vectors = []
        for batch in tqdm(batches, total=-(-total // BATCH), unit=" batches"):
            pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2)
            with torch.autocast("cpu", torch.bfloat16):
                vectors.append(embed_features(model, model.features(pixels)))
        return torch.cat(vectors)

    def photographs() -> Iterator[npt.NDArray[np.uint8]]:
        for file in files:
            yield model.square.pixels(read_rgb(file, size, options))

    files = [data.catalogue.file(index) for index in range(len(data.catalogue.images))]
    options = data.catalogue.read_options
    return {
        "images": embedded(photographs(), len(files)),
        "textures": embedded((_texture(size, rng) for _ in range(DRAWN)), DRAWN),
        "noise": embedded((rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(DRAWN)), DRAWN),
    }  # fmt: skip


def _texture(size: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw waves of one direction or two, or smoothed noise, in two colours."""
    down, across = np.mgrid[:size, :size] / size
    kind = rng.integers(3)
    if kind < 2:
        field = np.zeros((size, size))
        for _ in range(kind + 1):
            angle, waves = rng.uniform(0, np.pi), rng.uniform(4, 40)
            field += np.sin(2 * np.pi * waves * (np.cos(angle) * across + np.sin(angle) * down))
    else:
        grain = int(rng.integers(6, 60))
        small = Image.fromarray(rng.integers(0, 256, (grain, grain), dtype=np.uint8))
        field = np.asarray(small.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)
    share = ((field - field.min()) / np.ptp(field))[..., None]
    first, second = rng.uniform(0, 255, (2, 3))
    return (share * first + (1 - share) * second).astype(np.uint8)


if __name__ == "__main__":
    sys.exit(main())
