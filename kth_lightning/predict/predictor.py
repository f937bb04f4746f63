"""Predictions from Python: files, PIL images and arrays in, labels and probabilities out."""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy.special import softmax
from torch import Tensor

from kth_lightning.data.box import Crop
from kth_lightning.data.images import MAX_PIXELS, MIN_SIDE, ReadOptions, UnreadableImage, read_rgb, upright_rgb
from kth_lightning.errors import InputError
from kth_lightning.evaluation.novelty import Novelty
from kth_lightning.io.bounded_map import bounded_map
from kth_lightning.models import Classifier
from kth_lightning.models.checkpoint import load_classifier, read_checkpoint
from kth_lightning.models.embedding import with_embedding
from kth_lightning.models.folding import fold_trunk
from kth_lightning.predict.doubt import UNKNOWN, Doubt

ImageInput = str | Path | Crop | Image.Image | np.ndarray | Tensor
"""A file, a box of one, a PIL image, or uint8 values: an array [H, W] or [H, W, 3 or 4], or a tensor [3, H, W]."""

_Pixels = npt.NDArray[np.uint8] | str  # or why there are none


@dataclass(frozen=True, slots=True)
class Prediction:
    """Hold what a classifier says of one image.

    Attributes:
        label: The most probable class, "unknown" where that is not sure enough; None where there is an error.
        probability: Of the most probable class; None where there is an error.
        top_k: The most probable classes with their probabilities, falling.
        error: Why the image could not be read; None where it could.
        novelty: Share of the validation images that are less unusual, 0 to 1, as docs/trust.md says; None where there
            is an error, or the checkpoint has no summary of its images.
        set: Classes of which the true one is one as often as was asked for, the most probable first; None where nothing
            was asked for, or there is an error.
    """

    label: str | None = None
    probability: float | None = None
    top_k: tuple[tuple[str, float], ...] = ()
    error: str | None = None
    novelty: float | None = None
    set: tuple[str, ...] | None = None


def check_counts(**counts: int) -> None:
    """Refuse numbers that are less than 1.

    Raises:
        InputError: With the number's name.
    """
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"--{name} is at least 1; {count} was given")


def read_options(model: Classifier, value_range: Sequence[float] | None, max_pixels: int) -> ReadOptions:
    """Return how a classifier's images are read.

    Args:
        model: It keeps the range of values that it was trained with.
        value_range: Another one; None for the model's.
        max_pixels: The most pixels that are decoded of one image.

    Raises:
        InputError: The range is none.
    """
    if value_range is not None and (len(value_range) != 2 or not value_range[0] < value_range[1]):
        raise InputError(f"--value_range {[*value_range]}: give two numbers, the lower first, such as [0, 4095]")
    chosen = model.value_range if value_range is None else value_range
    return ReadOptions((float(chosen[0]), float(chosen[1])) if chosen else None, max_pixels)


class Predictor:
    """Classify images with a checkpoint and nothing else.

    Images are resized as in training, and the arithmetic is float32: with bfloat16, probabilities move by more than
    0.001.

    Args:
        ckpt_path: A finished run's `checkpoints/best.ckpt`, or a checkpoint that Lightning's Trainer wrote.
        device: "auto" for a GPU where there is one, a device of torch's, or several that share the work.
        calibrated: Divide the logits by the temperature that was fitted on the validation images.
        value_range: The values that are black and white in images deeper than 8 bits; those of training where it is
            left out.
        max_pixels: The most pixels that are decoded of one image; a larger one gets a prediction with an error.
        model_class: The classifier's class, where that comes from outside kth_lightning: its code is trusted then.
        min_accuracy: Give labels only where they are sure enough that so many of them are right, with 95 % confidence;
            the threshold comes from the checkpoint's validation images.
        min_probability: Give labels from this probability on, instead.
        coverage: Give sets of classes as well, of which so many hold the true class.

    Attributes:
        boxed: Whether the classifier was trained on boxes of images.

    Raises:
        InputError: The file is no such checkpoint, a setting is out of its range, or the checkpoint's validation images
            do not allow what is asked for.
    """

    def __init__(
        self,
        ckpt_path: str | Path,
        device: str | torch.device | Sequence[torch.device] = "auto",
        calibrated: bool = False,
        value_range: Sequence[float] | None = None,
        max_pixels: int = MAX_PIXELS,
        model_class: type[Classifier] | None = None,
        min_accuracy: float | None = None,
        min_probability: float | None = None,
        coverage: float | None = None,
    ) -> None:
        check_counts(max_pixels=max_pixels)
        if device == "auto":
            device = (torch.accelerator.is_available() and torch.accelerator.current_accelerator()) or "cpu"
        devices = [device] if isinstance(device, str | torch.device) else device
        models = [load_classifier(ckpt_path, item, model_class) for item in devices]
        checkpoint = read_checkpoint(ckpt_path)
        self.model = models[0]
        self.novelty = Novelty.of(checkpoint)
        self.boxed = bool(checkpoint.get("boxed"))
        self.class_names = self.model.class_names
        self.options = read_options(self.model, value_range, max_pixels)
        self.temperature = self.model.temperature if calibrated else 1.0
        if calibrated and self.temperature == 1:
            warnings.warn(f"{ckpt_path} has no fitted temperature, so nothing is calibrated", stacklevel=2)
        self.doubt = Doubt(checkpoint, self.class_names, self.temperature, min_accuracy, min_probability, coverage)
        # A thread a device, and always the same one: each new thread would have torch start a pool of its own.
        self._models = [
            (fold_trunk(model), novelty and novelty.to(model.device), ThreadPoolExecutor(1))
            for model, novelty in zip(models, (Novelty.of(checkpoint) for _ in models), strict=True)
        ]
        self._readers = ThreadPoolExecutor(os.cpu_count())

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a string is a file here, not an iterable of letters
        self, images: ImageInput, top_k: int = 3, batch_size: int = 32
    ) -> Prediction: ...

    @overload
    def __call__(self, images: Iterable[ImageInput], top_k: int = 3, batch_size: int = 32) -> list[Prediction]: ...

    def __call__(
        self, images: ImageInput | Iterable[ImageInput], top_k: int = 3, batch_size: int = 32
    ) -> Prediction | list[Prediction]:
        """Classify one image, or several in their order; one that cannot be read gets a prediction with an error.

        Raises:
            InputError: `top_k` or `batch_size` is less than 1.
        """
        if isinstance(images, ImageInput):
            return next(self.stream([images], top_k, batch_size))
        return list(self.stream(images, top_k, batch_size))

    def stream(self, images: Iterable[ImageInput], top_k: int = 3, batch_size: int = 32) -> Iterator[Prediction]:
        """Classify any number of images in their order, a few batches at a time.

        Args:
            images: Taken only as fast as predictions are.
            top_k: How many classes to name, as far as there are.
            batch_size: Images per step, on each device.

        Raises:
            InputError: `top_k` or `batch_size` is less than 1.
        """
        check_counts(top_k=top_k, batch_size=batch_size)
        turns = cycle(self._models)

        def predict(batch: list[_Pixels]) -> Future[list[Prediction]]:
            model, novelty, thread = next(turns)
            return thread.submit(self._predict, model, novelty, batch, top_k)

        in_flight = len(self._models) + 1
        read = bounded_map(self._read, images, batch_size * in_flight)
        batches = iter(lambda: list(islice(read, batch_size)), [])
        return (prediction for batch in bounded_map(predict, batches, in_flight) for prediction in batch)

    def _read(self, image: ImageInput) -> Future[_Pixels]:
        if isinstance(image, str | Path | Crop):
            return self._readers.submit(self._pixels, image)
        ready: Future[_Pixels] = Future()  # now, for the caller may use its array again, and PIL is not safe in threads
        ready.set_result(self._pixels(image))
        return ready

    def _pixels(self, image: ImageInput) -> _Pixels:
        """Return uint8 [size, size, 3], or the reason why there is none."""
        try:
            if isinstance(image, str | Path | Crop):
                image = read_rgb(Path(image) if isinstance(image, str) else image, self.model.image_size, self.options)
            else:
                image = _rgb(image, self.options)
        except UnreadableImage as error:
            return str(error)
        if min(image.size) < MIN_SIDE:
            return f"too small: {image.width}x{image.height} pixels, a side needs {MIN_SIDE}"
        return self.model.square.pixels(image)

    @torch.inference_mode()
    def _predict(
        self, model: Classifier, novelty: Novelty | None, batch: list[_Pixels], top_k: int
    ) -> list[Prediction]:
        pixels = [item for item in batch if not isinstance(item, str)]
        rows = iter(self._classified(model, novelty, np.stack(pixels), top_k) if pixels else [])
        return [Prediction(error=item) if isinstance(item, str) else next(rows) for item in batch]

    def _classified(
        self, model: Classifier, novelty: Novelty | None, pixels: npt.NDArray[np.uint8], top_k: int
    ) -> Iterator[Prediction]:
        logits, vectors = with_embedding(model, torch.from_numpy(pixels).to(model.device).permute(0, 3, 1, 2))
        values, positions = (logits / self.temperature).softmax(1).topk(min(top_k, len(self.class_names)))
        shares = novelty(vectors, logits).tolist() if novelty else [None] * len(pixels)
        probabilities = softmax(logits.cpu().double().numpy() / self.temperature, axis=1)
        rows = zip(positions.tolist(), values.tolist(), strict=True)
        doubts = zip(shares, self.doubt.withheld(probabilities), self.doubt.sets(probabilities), strict=True)
        for row, (share, withheld, classes) in zip(rows, doubts, strict=True):
            top = tuple((self.class_names[position], value) for position, value in zip(*row, strict=True))
            label, probability = top[0]
            yield Prediction(UNKNOWN if withheld else label, probability, top, novelty=share, set=classes)


def _rgb(image: Image.Image | npt.NDArray[np.uint8] | Tensor, options: ReadOptions) -> Image.Image:
    try:
        if isinstance(image, Tensor):
            image = (image.permute(1, 2, 0) if image.ndim == 3 else image).cpu().numpy()
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8:
                raise UnreadableImage(f"unreadable: an array of {image.dtype}; give uint8, 0 to 255")
            image = Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image)
        return upright_rgb(image, options)
    except (TypeError, ValueError, OSError) as error:  # an odd shape; a file that PIL opened and cannot read on
        raise UnreadableImage(f"unreadable: {error}") from None
