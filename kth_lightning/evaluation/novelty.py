"""How unusual an image is, beside what a classifier was trained on."""

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

ENERGY = 0.5
"""Weight of the energy beside the distance."""

FEWEST_KNOWN = 20
"""Validation images below which training images alone say what is usual."""

MOST_BYTES = 8_000_000
"""Of the summary that a checkpoint keeps."""

MOST_SCORES = 1000
"""Of validation images that are kept, evenly taken."""

HOW_TO_MAKE = f"0.3.0 and later versions keep one where a run has six training images or more: {TRAIN_AGAIN}"
"""What to do about a checkpoint without a summary."""

_PARTS = {"centre": torch.float32, "images": torch.float16, "distances": torch.float32, "keys": torch.int64}
_OF_KNOWN = {"scale": torch.float32, "scores": torch.float32}


class Novelty(nn.Module):
    """Tell the novelty of images: the share of validation images that are less unusual.

    An image is unusual by how far its vector lies from the training images', 1 less the mean cosine of its angles to
    the five nearest, and by its energy, less the logsumexp of its logits; docs/trust.md says how this was chosen.

    Without `scores`, as in checkpoints of format 1 and in those of few validation images, novelty is the share of
    training images that lie less far from the rest of them.

    Args:
        centre: What is taken off vectors, float32 [D].
        images: The training images' vectors, less the centre and of length 1, float16 [N, D].
        distances: How far each training image lies from the others, rising, float32 [N].
        keys: For each of `images` a number that depends on its content alone, int64 [N].
        scale: Of distance and energy in a score, float32 [2].
        scores: Of validation images, rising, float32 [M].
    """

    centre: Tensor
    images: Tensor
    distances: Tensor
    keys: Tensor
    scale: Tensor | None
    scores: Tensor | None

    def __init__(
        self,
        centre: Tensor,
        images: Tensor,
        distances: Tensor,
        keys: Tensor,
        scale: Tensor | None = None,
        scores: Tensor | None = None,
    ) -> None:
        super().__init__()
        given = {"centre": centre, "images": images, "distances": distances, "keys": keys}
        for name, tensor in (given | {"scale": scale, "scores": scores}).items():
            self.register_buffer(name, tensor)

    @classmethod
    def fit(cls, vectors: Tensor, keys: Tensor, known: tuple[Tensor, Tensor] | None = None) -> "Novelty | None":
        """Summarise training images.

        Args:
            vectors: float32 [N, D].
            keys: int64 [N].
            known: Vectors [K, D] and logits [K, C] of images that were not trained on.

        Returns:
            None where there are too few images, or a vector is not finite.
        """
        if len(vectors) <= NEIGHBOURS or not vectors.isfinite().all():
            return None
        centre = CENTRED * vectors.mean(0)
        images = functional.normalize(vectors - centre).half()
        cosines = _cosines(functional.normalize(images.float()), images)
        cosines.fill_diagonal_(-2)
        fitted = cls(centre, images, _distances(cosines).sort()[0], keys)
        if known is not None and len(known[0]) >= FEWEST_KNOWN:
            fitted._compare_with(*known)
        return fitted

    def _compare_with(self, vectors: Tensor, logits: Tensor) -> None:
        """Take the scores of images that were not trained on for what is usual, where they are numbers that vary."""
        parts = torch.stack([self._distance(vectors), _energy(logits)], dim=1)
        scale = torch.tensor([1, ENERGY]) / parts.std(0)
        scores = (parts * scale).sum(1).sort()[0]  # a matrix product would round to autocast's eight bits
        if scores.isfinite().all():
            kept = torch.linspace(0, len(scores) - 1, min(len(scores), MOST_SCORES)).round().long()
            self.scale, self.scores = scale, scores[kept]

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

    @property
    def compared(self) -> int:
        """Return the number of images that novelty is a share of."""
        return len(self.distances if self.scores is None else self.scores)

    def summary(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""
        return {name: value.cpu() for name, value in self.named_buffers()}

    def forward(self, vectors: Tensor, logits: Tensor) -> Tensor:
        """Map vectors float32 [B, D] and logits [B, C] to novelty, float32 [B] from 0 to 1."""
        distances = self._distance(vectors)
        if self.scale is None or self.scores is None:
            return (distances[:, None] > self.distances).float().mean(1)
        return _share_below(distances * self.scale[0] + _energy(logits) * self.scale[1], self.scores)

    def nearest(self, vectors: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Find the training images that are nearest to vectors float32 [B, D].

        Returns:
            1 less the cosine, rising, float32 [B, count], and the images' keys int64 [B, count]; fewer where there are
            fewer images.
        """
        cosines, positions = _cosines(self._centred(vectors), self.images).topk(min(count, len(self.keys)))
        return 1 - cosines, self.keys[positions]

    def _distance(self, vectors: Tensor) -> Tensor:
        return _distances(_cosines(self._centred(vectors), self.images))

    def _centred(self, vectors: Tensor) -> Tensor:
        if vectors.shape[1] != len(self.centre):
            raise InputError("--ckpt_path: the checkpoint's summary of its training images is another model's")
        return vectors - self.centre


def _is_summary(value: dict[str, Tensor]) -> bool:
    parts = _PARTS | _OF_KNOWN if value.keys() & _OF_KNOWN.keys() else _PARTS
    if value.keys() != parts.keys() or any(value[name].dtype != kind for name, kind in parts.items()):
        return False
    if parts is not _PARTS and (value["scale"].shape != (2,) or value["scores"].ndim != 1 or len(value["scores"]) < 2):
        return False
    images, finite = value["images"], all(tensor.isfinite().all() for tensor in value.values())
    if images.ndim != 2 or len(images) <= NEIGHBOURS:
        return False
    shapes = {"centre": (images.shape[1],), "distances": (len(images),), "keys": (len(images),)}
    return finite and all(value[name].shape == shape for name, shape in shapes.items())


def most_images(width: int) -> int:
    """Return how many images a summary of vectors of this length may keep."""
    beside = 4 * (width + MOST_SCORES + 2)
    return max(NEIGHBOURS + 1, (MOST_BYTES - beside) // (2 * width + 12))


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


def _energy(logits: Tensor) -> Tensor:
    """Return less the logsumexp of logits [B, C], float32 [B], which is low where some class is likely."""
    return -logits.float().logsumexp(1)


def _share_below(values: Tensor, scores: Tensor) -> Tensor:
    """Return the share of rising scores [M] that lie below values [B], float32 [B].

    Between two scores it grows evenly, so that rounding moves it by little; beyond the lowest and the highest it
    approaches 0 and 1 exponentially, so that what is more unusual is more novel.
    """
    spread = scores.std().clamp(min=1e-6)
    steps = (values[:, None] - scores[:-1]) / scores.diff().clamp(min=1e-6)
    below = ((values - scores[0]).clamp(max=0) / spread).exp()
    above = 1 - ((scores[-1] - values).clamp(max=0) / spread).exp()
    return (below + steps.clamp(0, 1).sum(1) + above) / (len(scores) + 1)
