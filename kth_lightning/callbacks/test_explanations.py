"""Show where a tested classifier looked: at its mistakes, and on the animals where masks show them."""

from contextlib import suppress
from typing import Any

import numpy as np

from kth_lightning.data.images import UnreadableImage, read_rgb
from kth_lightning.data.module import ImageData
from kth_lightning.errors import InputError
from kth_lightning.evaluation.localisation import localise
from kth_lightning.evaluation.nearest_images import TrainingImages
from kth_lightning.explain.explanation import Explanation, explain
from kth_lightning.explain.overlay import overlay
from kth_lightning.io.mistakes_file import LookAlike, Mistake
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.terminal import print_rank_zero
from kth_lightning.models import Classifier

MOST_MISTAKES = 24
MOST_MEASURED = 100
"""Images whose maps are measured at the end of a run; `explain --test_set true` measures all of them."""

_SIDE, _SMALL_SIDE = 360, 180  # pixels


def measure_maps(model: Classifier, data: ImageData, index: list[int], run: RunFolder) -> dict[str, Any] | None:
    """Measure how well the maps of test images find the animals, and write localisation.csv.

    Args:
        model: On whatever device.
        data: The images.
        index: Indices of the test images in the catalogue, N of them.
        run: The folder to write into.

    Returns:
        `Localisation.summary`, or None where the images have no masks or the network has no maps.
    """
    try:
        localised = localise(model, data.catalogue, index, MOST_MEASURED)
    except InputError:
        return None
    if localised is None:
        return None
    if localised.remark:
        print_rank_zero(localised.remark)
    run.write_localisation(localised.rows)
    return localised.summary


def draw_mistakes(
    model: Classifier,
    data: ImageData,
    index: list[int],
    labels: np.ndarray,
    probabilities: np.ndarray,
    run: RunFolder,
) -> None:
    """Write images of the most confident mistakes into `mistakes/`, with the training images that they look like.

    None are written where the network has no maps.

    Args:
        model: On whatever device.
        data: The images.
        index: Indices of the test images in the catalogue, N of them.
        labels: Indices of the true classes, int64 [N].
        probabilities: Shape [N, C].
        run: The folder to write into.
    """
    try:
        _write_mistakes(model, data, index, labels, probabilities, run)
    except InputError:
        return


def _write_mistakes(
    model: Classifier,
    data: ImageData,
    index: list[int],
    labels: np.ndarray,
    probabilities: np.ndarray,
    run: RunFolder,
) -> None:
    predictions, confidences = probabilities.argmax(1), probabilities.max(1)
    wrong = [row for row in np.argsort(-confidences, kind="stable") if predictions[row] != labels[row]][:MOST_MISTAKES]
    files = [data.catalogue.pixels(index[row]) for row in wrong]
    explanations = explain(model, files, predictions[wrong].tolist(), data.catalogue.read_options)
    mistakes, look_alikes = [], []
    training = TrainingImages(run.best_checkpoint) if run.best_checkpoint.exists() else None
    places = {image.name: place for place, image in enumerate(data.catalogue.images)}
    for number, (row, explanation) in enumerate(zip(wrong, explanations, strict=True), start=1):
        if not isinstance(explanation, Explanation):
            continue
        image = data.catalogue.images[index[row]]
        mistake = Mistake(
            path=image.path,
            label=data.class_names[labels[row]],
            prediction=data.class_names[predictions[row]],
            confidence=float(confidences[row]),
            image=f"{number:02d}-image.jpg",
            map=f"{number:02d}-map.jpg",
            box=image.box_text,
        )
        explanation.image.thumbnail((_SIDE, _SIDE))
        run.mistakes.mkdir(parents=True, exist_ok=True)
        explanation.image.save(run.mistakes / mistake.image, quality=85)
        overlay(explanation.image, explanation.map, model.square).save(run.mistakes / mistake.map, quality=85)
        mistakes.append(mistake)
        for rank, near in enumerate(training.nearest(explanation.vector) if training else [], start=1):
            file = f"{number:02d}-near-{rank}.jpg"
            alike = LookAlike(mistake.image, near.path, near.label, near.distance, file, near.box)
            with suppress(UnreadableImage):
                seen = read_rgb(data.catalogue.pixels(places[near.name]), _SMALL_SIDE, data.catalogue.read_options)
                seen.thumbnail((_SMALL_SIDE, _SMALL_SIDE))
                seen.save(run.mistakes / alike.image, quality=85)
                look_alikes.append(alike)
    if look_alikes:
        run.write_look_alikes(look_alikes)
    if mistakes:
        run.write_mistakes(mistakes)
