"""Growing shares of the training images, each inside the next."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from kth_lightning.data.catalogue import Catalogue
from kth_lightning.data.split import Split
from kth_lightning.data.stateless_random import uniform
from kth_lightning.errors import InputError

FEWEST = 2.0
"""Training images a class, on the average, in the smallest share."""

_LEAST = 8
"""Training images a class below which there is nothing to share out."""


def growing_shares(images_a_class: float, number: int) -> list[float]:
    """Return shares of the training images, rising to 1.

    Each is half of the next. Where the smallest would have fewer than two images a class, that has two, and the steps
    between are alike.

    Args:
        images_a_class: Mean number of training images of a class.
        number: Of shares.

    Raises:
        InputError: There are too few images.
    """
    if images_a_class < _LEAST:
        raise InputError(
            f"there are {images_a_class:.1f} training images a class, and a learning curve needs {_LEAST}; add images"
        )
    least = max(0.5 ** (number - 1), FEWEST / images_a_class)
    return [least ** (1 - step / (number - 1)) for step in range(number)]


def take_share(catalogue: Catalogue, split: Split, share: float, seed: int, fold: int) -> Split:
    """Leave a share of the training images and mark the others as unused; the other parts stay as they are.

    Every class keeps its share of its images, to within half of what must not be parted, and at least one. A smaller
    share is a part of a larger one. Which images it has depends on their content, the seed and the fold alone.

    Args:
        catalogue: The images.
        split: What each is for.
        share: Above 0 and at most 1.
        seed: Of the drawing of lots.
        fold: Each draws its own lots.
    """
    train = split.indices("train")
    units: dict[int, list[int]] = defaultdict(list)
    for position in train.tolist():
        units[int(catalogue.inseparable[position])].append(position)
    members = _in_random_order(catalogue, list(units.values()), seed, fold)
    totals = _labels(catalogue, train.tolist())
    before = dict.fromkeys(totals, 0)
    kept: set[int] = set()
    for unit in members:
        counts = _labels(catalogue, unit)
        # Where the unit's middle lies among the images of its classes, from 0 to 1, does not depend on the share.
        places = [count * (before[label] + count / 2) / totals[label] for label, count in counts.items()]
        if sum(places) / len(unit) <= share or any(before[label] == 0 for label in counts):
            kept.update(unit)
        for label, count in counts.items():
            before[label] += count
    parts = list(split.parts)
    for position in train.tolist():
        if position not in kept:
            parts[position] = "unused"
    return replace(split, parts=tuple(parts))


def _in_random_order(catalogue: Catalogue, units: Sequence[list[int]], seed: int, fold: int) -> list[list[int]]:
    """Order what must not be parted by lots that its content draws."""
    keys: npt.NDArray[np.int64] = np.array([catalogue.content_keys[unit].min() for unit in units])
    lots = uniform(seed, torch.tensor(fold), torch.from_numpy(keys)).numpy()
    return [units[place] for place in np.lexsort((keys, lots))]


def _labels(catalogue: Catalogue, positions: Sequence[int]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for position in positions:
        counts[catalogue.images[position].label] += 1
    return counts
