"""A classifier in a file that other programs run: how it is written, and whether it says what PyTorch says."""

import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from kth_lightning import __version__
from kth_lightning.errors import InputError
from kth_lightning.predict.export_graph import ImageClassifier
from kth_lightning.predict.predictor import Predictor

Exported = Callable[[npt.NDArray[np.uint8]], Sequence[npt.NDArray[np.float32]]]
"""From images to probabilities, and novelty where it is told."""


def write_exported(predictor: Predictor, file: Path) -> Exported:
    """Export to a file and read it back, ready to run.

    Args:
        predictor: What is exported, with its temperature.
        file: Ends in .onnx, or in .pt2, which has no novelty.

    Raises:
        RuntimeError: Torch cannot export the model.
    """
    novelty = predictor.novelty if file.suffix == ".onnx" else None
    graph = ImageClassifier(predictor.model, predictor.temperature, novelty).eval()
    metadata = {
        "class_names": predictor.class_names,
        "image_size": predictor.model.image_size,
        "interpolation": predictor.model.interpolation,
        "resize": predictor.model.resize,
        "value_range": predictor.model.value_range,
        "temperature": predictor.temperature,
        "kth_lightning": __version__,
    }
    example = (torch.zeros(2, 40, 48, 3, dtype=torch.uint8),)
    names = {0: "batch", 1: "height", 2: "width"}
    with torch.no_grad(), quiet_exporters(), _without_doubles(type(predictor.model)):
        if file.suffix == ".pt2":
            sizes = {position: torch.export.Dim(name) for position, name in names.items()}
            program = torch.export.export(graph, example, dynamic_shapes={"images": sizes}, strict=False)
            torch.export.save(program, file, extra_files={"metadata.json": json.dumps(metadata)})
            module = torch.export.load(file).module()
            return lambda images: [module(torch.from_numpy(images)).numpy()]
        onnx = torch.onnx.export(
            graph,
            example,
            input_names=["images"],
            output_names=["probabilities", "novelty"] if novelty else ["probabilities"],
            dynamic_shapes={"images": names},
            dynamo=True,
            verbose=False,
        )
        assert onnx is not None
        onnx.model.metadata_props.update(
            {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
        )
        onnx.save(file, external_data=False)
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})


def largest_difference(
    exported: Exported, predictor: Predictor, images: Iterable[npt.NDArray[np.uint8]]
) -> tuple[float, float, int]:
    """Compare an exported file with PyTorch, on batches of one and of two images in turns.

    Args:
        exported: uint8 [B, H, W, 3] to probabilities [B, C], and novelty [B] where it is told.
        predictor: What was exported.
        images: uint8 [H, W, 3], of any sizes.

    Returns:
        The largest difference of a probability (NaN where one is) and of a novelty, and the number of images.

    Raises:
        InputError: There is no image.
    """
    differences, of_novelty = [], [0.0]
    for position, image in enumerate(images):
        batch = np.stack([image, image[:, ::-1]][: 1 + position % 2])
        predictions = predictor(list(batch), top_k=len(predictor.class_names))
        if predictions[0].error is None:
            expected = [[dict(item.top_k)[name] for name in predictor.class_names] for item in predictions]
            given, *novelty = exported(batch)
            differences.append(np.abs(given - np.array(expected)).max())
            of_novelty += [np.abs(item - [row.novelty for row in predictions]).max() for item in novelty]
    if not differences:
        raise InputError("--check: none of the images could be read; name others")
    return float(np.max(differences)), float(np.max(of_novelty)), len(differences)


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Keep the exporters' remarks to themselves."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextmanager
def _without_doubles(model: type) -> Iterator[None]:
    """Tell a model's class from those that torch's exporter derives from it, which bear its name and stay.

    A later command of the same process would else find several classes of the name that a configuration gives.
    """
    try:
        yield
    finally:
        derived: type
        for derived in model.__subclasses__():
            if (derived.__module__, derived.__qualname__) == (model.__module__, model.__qualname__):
                derived.__qualname__ = f"torch_export.<locals>.{model.__name__}"
