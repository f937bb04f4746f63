"""What a classifier says of image files, and where it looks."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from kth_lightning.data.box import FileOrCrop
from kth_lightning.data.images import DEFAULT_OPTIONS, MIN_SIDE, ReadOptions, UnreadableImage, read_rgb
from kth_lightning.explain.cam import activation_maps
from kth_lightning.io.bounded_map import bounded_map
from kth_lightning.models import Classifier
from kth_lightning.models.embedding import embed_features
from kth_lightning.models.folding import fold_trunk

LONGEST = 1024
"""Longest side in pixels of the images kept beside their maps."""

_BATCH = 16
_WORTH_FOLDING = 40
"""Images below which folding a trunk takes longer than it spares."""


@dataclass(frozen=True)
class Explanation:
    """Hold what a classifier says of one image.

    Attributes:
        image: RGB, upright, in its own shape, with no side above `LONGEST`.
        logits: float32 [C].
        map: What each place of the square that the classifier saw adds to the logit of the class asked for, float32
            [h, w].
        vector: What `embed_features` makes of the image, float32 [D].
    """

    image: Image.Image
    logits: npt.NDArray[np.float32]
    map: npt.NDArray[np.float32]
    vector: npt.NDArray[np.float32]

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """Give the probabilities of the classes, float32 [C]."""
        return torch.from_numpy(self.logits).softmax(0).numpy()


def explain(
    model: Classifier,
    files: Sequence[FileOrCrop],
    classes: Sequence[int] | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> Iterator[Explanation | UnreadableImage]:
    """Yield for each file, in order, what the classifier makes of it or why it cannot be read.

    Args:
        model: On whatever device.
        files: Images, or boxes of them.
        classes: The class whose map is wanted, one a file; the predicted class's where left out.
        options: How the files are read.

    Raises:
        InputError: The network has no maps.
    """
    if len(files) >= _WORTH_FOLDING and model.class_activation() is not None:
        model = fold_trunk(model)  # without gradients, which Grad-CAM needs
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        closing(bounded_map(lambda file: pool.submit(_read, file, model, options), files, 2 * _BATCH)) as ahead,
    ):
        for start in range(0, len(files), _BATCH):
            read = list(islice(ahead, _BATCH))
            usable = [position for position, item in enumerate(read) if not isinstance(item, UnreadableImage)]
            mapped: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
            if usable:
                pixels = np.stack([item[1] for item in read if not isinstance(item, UnreadableImage)])
                images = torch.from_numpy(pixels).to(model.device).permute(0, 3, 1, 2)
                wanted = None if classes is None else torch.tensor([[classes[start + position]] for position in usable])
                with _features_of(model) as seen:
                    logits, maps = activation_maps(model, images, "predicted" if wanted is None else wanted)
                whole = [given for given in seen if len(given) == len(images)]
                with torch.no_grad():
                    vectors = embed_features(model, whole[0] if whole else model.features(images))
                found = (logits.float().cpu(), maps[:, 0].nan_to_num().cpu(), vectors.cpu())
                mapped = dict(zip(usable, zip(*found, strict=True), strict=True))
            for position, item in enumerate(read):
                if isinstance(item, UnreadableImage):
                    yield item
                else:
                    yield Explanation(item[0], *(tensor.numpy() for tensor in mapped[position]))


@contextmanager
def _features_of(model: Classifier) -> Iterator[list[torch.Tensor]]:
    """Keep what the trunk gives: first of the images, or of one of them, and then perhaps of mirror images."""
    seen: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: Any, given: Any) -> None:
        if isinstance(given, torch.Tensor):
            seen.append(given.detach())

    plain = type(model).features is Classifier.features
    hooks = [model.trunk.register_forward_hook(keep)] if plain and model.trunk is not None else []
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _read(
    file: FileOrCrop, model: Classifier, options: ReadOptions
) -> tuple[Image.Image, npt.NDArray[np.uint8]] | UnreadableImage:
    try:
        image = read_rgb(file, model.image_size, options)
    except UnreadableImage as error:
        return error
    if min(image.size) < MIN_SIDE:
        return UnreadableImage(f"too small: {image.width}x{image.height} pixels, a side needs {MIN_SIDE}")
    pixels = model.square.pixels(image)
    image.thumbnail((LONGEST, LONGEST))
    return image, pixels
