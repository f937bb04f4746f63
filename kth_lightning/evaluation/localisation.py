"""How well a classifier's maps find the animals that masks show."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.stats import bootstrap

from kth_lightning.data.catalogue import Catalogue
from kth_lightning.data.square import Span, Square
from kth_lightning.errors import InputError
from kth_lightning.evaluation.masks import objects_in, read_mask
from kth_lightning.evaluation.statistics import RESAMPLES, accuracy_interval
from kth_lightning.explain.explanation import Explanation, explain
from kth_lightning.explain.overlay import enlarge
from kth_lightning.io.progress import Progress
from kth_lightning.models import Classifier

_MUCH = 0.5  # of the images, on the average

SHARE = 0.2
"""What a place must have of its map's highest value to count as animal.

The value of Zhou et al., 2016. Of 0.05, 0.10 ... 0.70 it gives the validation images of KTH-ANIMALS the best mask IoU
for a head on VGG19 (0.53), and within 0.02 and 0.04 of the best for the fine-tuned VGG19 and for EfficientNet-Lite0.
"""


class Score(NamedTuple):
    """Say how well one map finds the animals of its image.

    Attributes:
        pointing: 1 where the highest place of the map lies on an animal, else 0.
        iou_mask: Intersection over union of the places above the threshold with all animals together.
        iou_box: The same of the box around the largest connected part of those places with the box of the animal that
            it fits best: a map says where a class is, not of how many animals, so one of a herd is enough.
    """

    pointing: float
    iou_mask: float
    iou_box: float


@dataclass(frozen=True)
class Localisation:
    """Hold how well a classifier's maps find animals.

    Attributes:
        summary: "n", the number of images; "pointing", "iou_mask" and "iou_box", means with "value", "low" and
            "high"; and "whole_picture", the same three for the whole image given as the answer (for "pointing", any
            place of it).
        rows: For each class "class", "n", the three values, and their bounds as "pointing_low" and so on.
        remark: A sentence where the masks look as if objects and background were exchanged; else empty.
    """

    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    remark: str = ""


def localise(
    model: Classifier, catalogue: Catalogue, index: Sequence[int], most: int | None = None
) -> Localisation | None:
    """Measure the maps of the true classes against the images' masks.

    The intervals are those of 95 %: Wilson's for pointing, for the others a percentile bootstrap over the images with
    a fixed seed.

    Args:
        model: On whatever device.
        catalogue: The images.
        index: Indices in the catalogue; those without a mask are left out.
        most: Of more images with masks than this, as many are drawn and measured; all where it is left out.

    Returns:
        None where no mask shows an object.

    Raises:
        InputError: The network has no maps, or does not know the images' classes.
    """
    masked = [position for position in index if catalogue.mask_file(position)]
    if not masked:
        return None
    if most is not None and len(masked) > most:
        masked = sorted(np.random.default_rng(0).choice(masked, most, replace=False).tolist())
    labels = [catalogue.images[position].label for position in masked]
    if unknown := sorted({*labels} - {*model.class_names}):
        raise InputError(f"--ckpt_path: the checkpoint does not know the class {unknown[0]!r} of the images")
    classes = [model.class_names.index(label) for label in labels]
    explanations = explain(model, [catalogue.pixels(position) for position in masked], classes, catalogue.read_options)
    of_class: dict[str, list[Score]] = defaultdict(list)
    of_whole: list[Score] = []
    covered: list[float] = []
    bar = Progress(masked, "testing", "activation maps")
    for position, label, explanation in zip(bar, labels, explanations, strict=True):
        file = catalogue.mask_file(position)
        mask = read_mask(file, catalogue.mask_background) if file else None
        if mask is None:
            continue
        covered.append(float((mask > 0).mean()))
        animals = objects_in(mask, catalogue.images[position].box)
        if animals is not None and isinstance(explanation, Explanation):
            of_class[label].append(score(explanation.map, animals, model.square))
            of_whole.append(_score_of_whole(animals))
    if not of_whole:
        return None
    rows = []
    for label, scores in sorted(of_class.items()):
        row: dict[str, Any] = {"class": label, "n": len(scores)}
        for name, estimate in _estimates(scores).items():
            row |= {name: estimate["value"], f"{name}_low": estimate["low"], f"{name}_high": estimate["high"]}
        rows.append(row)
    everything = [item for scores in of_class.values() for item in scores]
    whole = dict(zip(Score._fields, np.mean(of_whole, axis=0).tolist(), strict=True))
    summary = {"n": len(everything), **_estimates(everything), "whole_picture": whole}
    return Localisation(summary, rows, _looks_inverted(covered) if catalogue.mask_background == "zero" else "")


def _looks_inverted(covered: Sequence[float]) -> str:
    """Say what share of the images the objects cover, where it is more than half."""
    share = float(np.mean(covered))
    if share <= _MUCH:
        return ""
    return (
        f"the masks' objects cover {100 * share:.1f} % of the images on the average, since every value but 0 is an "
        "object; if they are the background, write masks that are 0 where there is no object"
    )


def score(activation: npt.NDArray[np.float32], animals: npt.NDArray[np.int64], square: Square) -> Score:
    """Compare a map [h, w] with the animals [H, W] of its image, 1..n and 0 for all else.

    Args:
        activation: Of the square that the classifier saw.
        animals: In the image's own shape.
        square: How the image became that square. A bar of it is on no animal.
    """
    height, width = animals.shape
    row, column = np.unravel_index(activation.argmax(), activation.shape)
    # The middle of the highest place: at the border of the enlarged map its height is that of the border as well.
    y = _pixel(int(row), activation.shape[0], square.span(height, width), square.size)
    x = _pixel(int(column), activation.shape[1], square.span(width, height), square.size)
    enlarged = enlarge(activation, width, height, square)
    highest = enlarged.max()
    hot = enlarged >= min(SHARE * highest, highest)  # a class that is nowhere seen has a map below zero
    parts, _ = ndimage.label(hot)
    largest = np.bincount(parts[hot]).argmax()
    animal = animals > 0
    return Score(
        pointing=float(0 <= y < height and 0 <= x < width and animal[y, x]),
        iou_mask=float((hot & animal).sum() / (hot | animal).sum()),
        iou_box=_best_iou(ndimage.find_objects(parts)[largest - 1], animals),
    )


def _pixel(place: int, places: int, span: Span, size: int) -> int:
    """Return the image's pixel at the middle of a map's place, along one side; none of the image's for a bar."""
    return span.start + math.floor(((place + 0.5) * size - span.at * places) * span.seen / (span.shown * places))


def _score_of_whole(animals: npt.NDArray[np.int64]) -> Score:
    covered = float((animals > 0).mean())
    return Score(covered, covered, _best_iou(tuple(slice(0, side) for side in animals.shape), animals))


def _best_iou(box: tuple[slice, ...], animals: npt.NDArray[np.int64]) -> float:
    return max(_iou(box, other) for other in ndimage.find_objects(animals))


def _iou(one: tuple[slice, ...], other: tuple[slice, ...]) -> float:
    common = _area([slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True)])
    return common / (_area(one) + _area(other) - common)


def _area(box: Sequence[slice]) -> int:
    return max(0, box[0].stop - box[0].start) * max(0, box[1].stop - box[1].start)


def _estimates(scores: Sequence[Score]) -> dict[str, dict[str, float | None]]:
    pointing, *overlaps = np.array(scores).T
    low, high = accuracy_interval(int(pointing.sum()), len(scores))
    estimates: dict[str, dict[str, float | None]] = {
        "pointing": {"value": float(pointing.mean()), "low": low, "high": high}
    }
    for name, values in zip(Score._fields[1:], overlaps, strict=True):
        estimates[name] = {"value": float(values.mean()), "low": None, "high": None}
        if len(values) > 1:
            drawn = bootstrap((values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0)
            low, high = drawn.confidence_interval
            estimates[name] |= {"low": float(low), "high": float(high)}
    return estimates
