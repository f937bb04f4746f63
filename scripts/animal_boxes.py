"""Does cropping to the animal help? KTH-ANIMALS as two tables, whole and with boxes from its masks.

python scripts/animal_boxes.py write DIR        # DIR/whole.csv and DIR/boxes.csv
python -m kth_lightning compare --models configs/best.yaml --folds 5 --data.table DIR/whole.csv --run_dir DIR/whole
python -m kth_lightning compare --models configs/best.yaml --folds 5 --data.table DIR/boxes.csv --run_dir DIR/boxes
python scripts/animal_boxes.py judge DIR        # accuracies, and the paired test over all images
python scripts/animal_boxes.py rows             # how long a table of 100,000 boxes takes to list
"""

import os
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from kth_lightning.data.box import make_box
from kth_lightning.data.prepare import prepare
from kth_lightning.data.sources.kth import KthSource
from kth_lightning.data.sources.source import checked_listing
from kth_lightning.data.sources.table import TableSource
from kth_lightning.evaluation.masks import objects_in, read_mask
from kth_lightning.evaluation.statistics import accuracy_interval, mcnemar
from kth_lightning.io.cache_folder import cache_folder
from kth_lightning.io.csv_text import csv_text, read_csv
from kth_lightning.io.run_folder import RunFolder

ROWS = 100_000


def write(folder: Path) -> None:
    """Write both tables: the label of every image, its duplicates as groups, and the box around all its animals."""
    catalogue = prepare(KthSource(os.environ.get("KTH_ANIMALS_ARCHIVE")), cache_folder()).catalogue
    members = Counter(image.duplicates for image in catalogue.images)
    rows = []
    for position, image in enumerate(catalogue.images):
        group = f"duplicates {image.duplicates}" if members[image.duplicates] > 1 else ""
        rows.append([str(catalogue.file(position)), image.label, group, _box(catalogue.mask_file(position))])
    folder.mkdir(parents=True, exist_ok=True)
    header = ["path", "label", "group"]
    (folder / "whole.csv").write_text(csv_text([header, *(row[:3] for row in rows)]), encoding="utf-8")
    (folder / "boxes.csv").write_text(csv_text([[*header, "box"], *rows]), encoding="utf-8")
    print(f"{len(rows)} images, {sum(bool(row[3]) for row in rows)} with a box")


def _box(mask: Path | None) -> str:
    whole = read_mask(mask, "highest") if mask else None
    animals = None if whole is None else objects_in(whole, None)
    if animals is None:
        return ""
    rows, columns = np.nonzero(animals)
    top, left = rows.min(), columns.min()
    sides = (left, top, columns.max() + 1 - left, rows.max() + 1 - top)
    return str(make_box(float(side) / animals.shape[1 - number % 2] for number, side in enumerate(sides)))


def judge(folder: Path) -> None:
    """Print validation and test accuracy over the folds, and how the two differ image by image."""
    right: dict[str, dict[str, bool]] = {}
    for name in ("whole", "boxes"):
        runs = [RunFolder(path) for path in sorted((folder / name).glob("fold-*/best"))]
        chosen = [max(run.read_history(), key=lambda row: -row["val/loss"]) for run in runs]
        right[name] = {row["path"]: row["correct"] == "1" for run in runs for row in read_csv(run.predictions)}
        correct, total = sum(right[name].values()), len(right[name])
        low, high = accuracy_interval(correct, total)
        folds = [run.read_metrics()["test"]["acc"]["value"] for run in runs]
        validation = np.mean([row["val/acc"] for row in chosen])
        print(
            f"{name}: validation {100 * validation:.2f} %, test {100 * correct / total:.2f} % "
            f"({100 * low:.2f}-{100 * high:.2f}; fold by fold {np.std(folds, ddof=1) * 100:.2f} points) of {total}"
        )
    shared = sorted(right["whole"].keys() & right["boxes"].keys())
    whole, boxes = (np.array([right[name][path] for path in shared]) for name in ("whole", "boxes"))
    test = mcnemar(boxes, whole)
    print(f"right only cropped: {test.first_only}, right only whole: {test.second_only}, p = {test.p:.3g} (McNemar)")


def rows() -> None:
    """Time the listing of a table of many boxes, three times."""
    with TemporaryDirectory() as folder:
        table = Path(folder) / "table.csv"
        cells = ([f"site{row % 40}/{row // 2}.jpg", f"class{row % 30}", f"site{row % 40}", f"{row % 2 / 2} .1 .5 .8"]
                 for row in range(ROWS))  # fmt: skip
        table.write_text(csv_text([["path", "label", "group", "box"], *cells]), encoding="utf-8")
        for _ in range(3):
            start = time.perf_counter()
            count = len(checked_listing(TableSource(str(table)), Path(folder) / "cache").candidates)
            print(f"{count:,} boxes listed in {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", folder]:
            write(Path(folder))
        case ["judge", folder]:
            judge(Path(folder))
        case ["rows"]:
            rows()
        case _:
            sys.exit(__doc__)
