"""How far an image lies from all that a classifier was trained on."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from kth_lightning.errors import InputError
from kth_lightning.evaluation.train_again import TRAIN_AGAIN

NEIGHBOURS = 5
CENTRED = 0.5
"""Share of the training images' mean that is taken off."""

MOST_BYTES = 8_000_000
"""Of the vectors that a checkpoint keeps."""

HOW_TO_MAKE = f"0.3.0 and later versions keep one where a run has six training images or more: {TRAIN_AGAIN}"
"""What to do about a checkpoint without a summary."""

_PARTS = {"centre": torch.float32, "images": torch.float16, "distances": torch.float32, "keys": torch.int64}


class Novelty(nn.Module):
    """Tell the novelty of vectors: the share of training images that lie less far from the rest of them.

    How far a vector lies is 1 less the mean cosine of its angles to the five nearest training images; docs/trust.md
    says how this was chosen.

    Args:
        centre: What is taken off vectors, float32 [D].
        images: The training images' vectors, less the centre and of length 1, float16 [N, D].
        distances: How far each training image lies from the others, rising, float32 [N].
        keys: For each of `images` a number that depends on its content alone, int64 [N].
    """

    centre: Tensor
    images: Tensor
    distances: Tensor
    keys: Tensor

    def __init__(self, centre: Tensor, images: Tensor, distances: Tensor, keys: Tensor) -> None:
        super().__init__()
        given = {"centre": centre, "images": images, "distances": distances, "keys": keys}
        for name, tensor in given.items():
            self.register_buffer(name, tensor)

    @classmethod
    def fit(cls, vectors: Tensor, keys: Tensor) -> "Novelty | None":
        """Summarise training images.

        Args:
            vectors: float32 [N, D].
            keys: int64 [N].

        Returns:
            None where there are too few images, or a vector is not finite.
        """
        if len(vectors) <= NEIGHBOURS or not vectors.isfinite().all():
            return None
        centre = CENTRED * vectors.mean(0)
        images = functional.normalize(vectors - centre).half()
        cosines = _cosines(functional.normalize(images.float()), images)
        cosines.fill_diagonal_(-2)
        return cls(centre, images, _distances(cosines).sort()[0], keys)

    @classmethod
    def of(cls, checkpoint: dict[str, Any]) -> "Novelty | None":
        """Take the summary out of a checkpoint; None where it has none.

        Raises:
            InputError: It is damaged.
        """
        summary = checkpoint.get("novelty")
        if summary is None:
            return None
        if not _is_summary(summary):
            raise InputError("--ckpt_path: the checkpoint's summary of its training images is damaged; give another")
        return cls(**summary)

    def summary(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""
        return {name: getattr(self, name).cpu() for name in _PARTS}

    def forward(self, vectors: Tensor) -> Tensor:
        """Map vectors float32 [B, D] to their novelty, float32 [B] from 0 to 1."""
        distances = _distances(_cosines(self._centred(vectors), self.images))
        return (distances[:, None] > self.distances).float().mean(1)

    def nearest(self, vectors: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Find the training images that are nearest to vectors float32 [B, D].

        Returns:
            1 less the cosine, rising, float32 [B, count], and the images' keys int64 [B, count]; fewer where there are
            fewer images.
        """
        cosines, positions = _cosines(self._centred(vectors), self.images).topk(min(count, len(self.keys)))
        return 1 - cosines, self.keys[positions]

    def _centred(self, vectors: Tensor) -> Tensor:
        if vectors.shape[1] != len(self.centre):
            raise InputError("--ckpt_path: the checkpoint's summary of its training images is another model's")
        return vectors - self.centre


def _is_summary(value: dict[str, Tensor]) -> bool:
    if value.keys() != _PARTS.keys() or any(value[name].dtype != kind for name, kind in _PARTS.items()):
        return False
    images, finite = value["images"], all(tensor.isfinite().all() for tensor in value.values())
    if images.ndim != 2 or len(images) <= NEIGHBOURS:
        return False
    shapes = {"centre": (images.shape[1],), "distances": (len(images),), "keys": (len(images),)}
    return finite and all(value[name].shape == shape for name, shape in shapes.items())


def most_images(width: int) -> int:
    """Return how many images a summary of vectors of this length may keep."""
    return max(NEIGHBOURS + 1, MOST_BYTES // (2 * width))


def thin_out(labels: Tensor, keys: Tensor, most: int) -> Tensor:
    """Choose images to keep, as many of every class as can be, by their content alone.

    Args:
        labels: int64 [N].
        keys: int64 [N], that depend on the images' content.
        most: How many to keep.

    Returns:
        Their positions, rising, int64.
    """
    order = torch.from_numpy(np.lexsort((keys.numpy(), labels.numpy())))
    ranks = torch.empty(len(labels), dtype=torch.int64)
    starts = torch.bincount(labels).cumsum(0) - torch.bincount(labels)
    ranks[order] = torch.arange(len(labels)) - starts[labels[order]]
    chosen = np.lexsort((keys.numpy(), ranks.numpy()))[:most]
    return torch.from_numpy(np.sort(chosen))


def _cosines(vectors: Tensor, images: Tensor) -> Tensor:
    """Return the cosines of the angles between vectors [B, D] and images float16 [N, D], float32 [B, N]."""
    with torch.autocast(vectors.device.type, enabled=False):
        # Rounded to half precision, lengths differ from 1 by more than near images' cosines do.
        return functional.normalize(vectors) @ functional.normalize(images.float()).T


def _distances(cosines: Tensor) -> Tensor:
    return 1 - cosines.topk(NEIGHBOURS)[0].mean(1)
