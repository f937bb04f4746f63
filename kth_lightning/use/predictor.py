"""Predictions from Python: files, PIL pictures and arrays in, labels and probabilities out."""

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
from torch import Tensor

from kth_lightning.data.ahead import in_order
from kth_lightning.data.images import MIN_SIDE, UnreadablePicture, read_rgb, upright_rgb
from kth_lightning.data.pixels import resize
from kth_lightning.errors import InputError
from kth_lightning.models import Classifier
from kth_lightning.use.checkpoint import load_classifier

Picture = str | Path | Image.Image | np.ndarray | Tensor
"""A file, a PIL picture, or uint8 values: an array [H, W], [H, W, 3] or [H, W, 4], or a tensor [3, H, W]."""

_Pixels = npt.NDArray[np.uint8] | str  # or why there are none


@dataclass(frozen=True, slots=True)
class Prediction:
    """Hold what a classifier says of one picture.

    Attributes:
        label: The most probable class; None where there is an error.
        probability: Of that class; None where there is an error.
        top_k: The most probable classes with their probabilities, falling, `label` first.
        error: Why the picture could not be read; None where it could.
    """

    label: str | None = None
    probability: float | None = None
    top_k: tuple[tuple[str, float], ...] = ()
    error: str | None = None


def check_counts(**counts: int) -> None:
    """Refuse numbers that are less than 1.

    Raises:
        InputError: With the number's name.
    """
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"--{name} is at least 1; {count} was given")


class Predictor:
    """Classify pictures with a checkpoint and nothing else.

    Pictures are resized as in training, and the arithmetic is float32: with bfloat16, probabilities move by more than
    0.001.

    Args:
        ckpt_path: A finished run's `checkpoints/best.ckpt`.
        device: "auto" for a GPU where there is one, a device of torch's, or several that share the work.
        calibrated: Divide the logits by the temperature that was fitted on the validation pictures.

    Raises:
        InputError: The file is no such checkpoint.
    """

    def __init__(
        self,
        ckpt_path: str | Path,
        device: str | torch.device | Sequence[torch.device] = "auto",
        calibrated: bool = False,
    ) -> None:
        if device == "auto":
            device = (torch.accelerator.is_available() and torch.accelerator.current_accelerator()) or "cpu"
        devices = [device] if isinstance(device, str | torch.device) else device
        models = [load_classifier(ckpt_path, each) for each in devices]
        self.model = models[0]
        self.class_names = self.model.class_names
        self.temperature = self.model.temperature if calibrated else 1.0
        if calibrated and self.temperature == 1:
            warnings.warn(f"{ckpt_path} has no fitted temperature, so nothing is calibrated", stacklevel=2)
        # A thread a device, and always the same one: each new thread would have torch start a pool of its own.
        self._models = [(model, ThreadPoolExecutor(1)) for model in models]
        self._readers = ThreadPoolExecutor(os.cpu_count())

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a string is a file here, not an iterable of letters
        self, pictures: Picture, top_k: int = 3, batch_size: int = 32
    ) -> Prediction: ...

    @overload
    def __call__(self, pictures: Iterable[Picture], top_k: int = 3, batch_size: int = 32) -> list[Prediction]: ...

    def __call__(
        self, pictures: Picture | Iterable[Picture], top_k: int = 3, batch_size: int = 32
    ) -> Prediction | list[Prediction]:
        """Classify one picture, or several in their order; one that cannot be read gets a prediction with an error.

        Raises:
            InputError: `top_k` or `batch_size` is less than 1.
        """
        if isinstance(pictures, Picture):
            return next(self.stream([pictures], top_k, batch_size))
        return list(self.stream(pictures, top_k, batch_size))

    def stream(self, pictures: Iterable[Picture], top_k: int = 3, batch_size: int = 32) -> Iterator[Prediction]:
        """Classify any number of pictures in their order, a few batches at a time.

        Args:
            pictures: Taken only as fast as predictions are.
            top_k: How many classes to name, as far as there are.
            batch_size: Pictures a step, on each device.

        Raises:
            InputError: `top_k` or `batch_size` is less than 1.
        """
        check_counts(top_k=top_k, batch_size=batch_size)
        turns = cycle(self._models)

        def predict(batch: list[_Pixels]) -> Future[list[Prediction]]:
            model, thread = next(turns)
            return thread.submit(self._predict, model, batch, top_k)

        ahead = len(self._models) + 1
        read = in_order(self._read, pictures, batch_size * ahead)
        batches = iter(lambda: list(islice(read, batch_size)), [])
        return (prediction for batch in in_order(predict, batches, ahead) for prediction in batch)

    def _read(self, picture: Picture) -> Future[_Pixels]:
        if isinstance(picture, str | Path):
            return self._readers.submit(self._pixels, picture)
        ready: Future[_Pixels] = Future()  # now, for the caller may use its array again, and PIL is not safe in threads
        ready.set_result(self._pixels(picture))
        return ready

    def _pixels(self, picture: Picture) -> _Pixels:
        """Return uint8 [size, size, 3], or the reason why there is none."""
        try:
            if isinstance(picture, str | Path):
                image = read_rgb(Path(picture), at_least=self.model.image_size)
            else:
                image = _rgb(picture)
        except UnreadablePicture as error:
            return str(error)
        if min(image.size) < MIN_SIDE:
            return f"too small: {image.width}x{image.height} pixels, a side needs {MIN_SIDE}"
        return resize(image, self.model.image_size, self.model.interpolation)

    @torch.inference_mode()
    def _predict(self, model: Classifier, batch: list[_Pixels], top_k: int) -> list[Prediction]:
        pixels = [each for each in batch if not isinstance(each, str)]
        rows = iter(self._most_probable(model, np.stack(pixels), top_k) if pixels else [])
        return [Prediction(error=each) if isinstance(each, str) else Prediction(*next(rows)) for each in batch]

    def _most_probable(
        self, model: Classifier, pixels: npt.NDArray[np.uint8], top_k: int
    ) -> Iterator[tuple[str, float, tuple[tuple[str, float], ...]]]:
        logits = model(torch.from_numpy(pixels).to(model.device).permute(0, 3, 1, 2))
        values, places = (logits / self.temperature).softmax(1).topk(min(top_k, len(self.class_names)))
        for row in zip(places.tolist(), values.tolist(), strict=True):
            top = tuple((self.class_names[place], value) for place, value in zip(*row, strict=True))
            yield (*top[0], top)


def _rgb(picture: Image.Image | npt.NDArray[np.uint8] | Tensor) -> Image.Image:
    try:
        if isinstance(picture, Tensor):
            picture = (picture.permute(1, 2, 0) if picture.ndim == 3 else picture).cpu().numpy()
        if isinstance(picture, np.ndarray):
            if picture.dtype != np.uint8:
                raise UnreadablePicture(f"unreadable: an array of {picture.dtype}; give uint8, 0 to 255")
            picture = Image.fromarray(picture[..., 0] if picture.shape[2:] == (1,) else picture)
        return upright_rgb(picture)
    except (TypeError, ValueError, OSError) as error:  # an odd shape; a file that PIL opened and cannot read on
        raise UnreadablePicture(f"unreadable: {error}") from None
