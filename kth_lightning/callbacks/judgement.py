"""What predictions of a part of the split are worth, and on what they were made."""

from importlib.metadata import version
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from kth_lightning.callbacks.device_name import device_name
from kth_lightning.callbacks.image_data import image_data
from kth_lightning.callbacks.test_explanations import measure_maps
from kth_lightning.data.image_statistics import image_statistics
from kth_lightning.drawing.attempt import attempt
from kth_lightning.evaluation.calibration import apply_temperature, expected_calibration_error
from kth_lightning.evaluation.class_figures import class_figures
from kth_lightning.evaluation.clusters import cluster_numbers, summarise_groups
from kth_lightning.evaluation.selective import risk_coverage
from kth_lightning.evaluation.statistics import confusion_matrix, cross_entropies
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.split_file import read_split, split_hashes
from kth_lightning.models import Classifier


def write_judgement(
    trainer: L.Trainer, run: RunFolder, index: Tensor, labels: Tensor, logits: Tensor, temperature: float
) -> dict[str, Any]:
    """Write predictions, confusions, image statistics and localisation into a folder, and return their figures.

    Args:
        trainer: Whose model made the predictions.
        run: The folder.
        index: Of the images in the catalogue, int64 [N].
        labels: Their classes, int64 [N].
        logits: What the model said, [N, C].
        temperature: That was fitted on validation images.

    Returns:
        As metrics.json has them.
    """
    model, data = trainer.lightning_module, image_data(trainer)
    assert isinstance(model, Classifier)
    targets, probabilities = labels.numpy(), logits.double().softmax(1).numpy()
    images = [data.catalogue.images[item] for item in index.tolist()]
    paths, boxes = ([getattr(image, name) for image in images] for name in ("path", "box_text"))
    groups = [image.group for image in images]
    run.write_predictions(paths, targets, data.class_names, probabilities, groups, boxes)
    run.write_confusion(confusion_matrix(targets, probabilities.argmax(1), data.num_classes), data.class_names)
    run.write_image_statistics(paths, image_statistics(data, index.numpy()), boxes)
    figures = _judge(targets, probabilities, groups, temperature)
    figures["classes"] = class_figures(targets, probabilities.argmax(1), data.class_names, groups)
    further = model.further_figures(logits, labels)
    figures |= {name: {"value": value, "low": None, "high": None} for name, value in further.items()}
    with (
        attempt("the activation maps are not evaluated"),
        torch.inference_mode(False),
        trainer.precision_plugin.forward_context(),
    ):
        located = measure_maps(model, data, index.tolist(), run)
        if located is not None:
            figures["localisation"] = located
    return figures


def _judge(labels: np.ndarray, probabilities: np.ndarray, groups: list[str], temperature: float) -> dict[str, Any]:
    """Measure predictions, as they are and as the temperature mends them."""
    calibrated = apply_temperature(probabilities, temperature)
    figures = summarise_groups(labels, probabilities, groups) | {
        "ece": expected_calibration_error(labels, probabilities),
        "ece_calibrated": expected_calibration_error(labels, calibrated),
        "loss_calibrated": float(cross_entropies(labels, calibrated).mean()),
    }
    if np.isfinite(probabilities).all():
        right = probabilities.argmax(axis=1) == labels
        figures["aurc"] = risk_coverage(probabilities.max(axis=1), right, cluster_numbers(groups)).area
    return figures


def environment(trainer: L.Trainer, run: RunFolder) -> dict[str, Any]:
    """Return what metrics.json says of model, device, versions and images.

    Args:
        trainer: At work.
        run: Its splits.csv tells the images.
    """
    model, data = trainer.lightning_module, image_data(trainer)
    assert isinstance(model, Classifier)
    return {
        "parameters": sum(item.numel() for item in model.parameters()),
        "device": device_name(trainer),
        "precision": str(trainer.precision),
        "versions": {name: version(name) for name in ("torch", "torchvision", "lightning", "torchmetrics", "timm")},
        "seed": model.seed,
        "left_out": data.prepared.left_out,
        "corrections": data.prepared.corrections.counts if data.prepared.corrections else None,
        "value_range": data.value_range,
        "hashes": split_hashes(read_split(run.splits, "")) | {"weights": model.weights_sha256()},
    }
