"""The space in which a classifier compares images: what its last dense layer takes."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from kth_lightning.models.base import Classifier


@contextmanager
def _watched(model: Classifier) -> Iterator[list[Tensor]]:
    """Collect what the dense layers that could give the logits are given, in the order of the calls."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])

    last = [
        layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer.out_features == model.num_classes and not name.startswith("trunk.")
    ]
    handles = [layer.register_forward_pre_hook(keep) for layer in last]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def embed_features(model: Classifier, features: Tensor) -> Tensor:
    """Map what the trunk gives to vectors, float32 [B, D], as `with_embedding` does images.

    Args:
        model: In evaluation mode.
        features: Of the images as they are.
    """
    with _watched(model) as seen:
        logits = model.tail(features)
    return (seen[-1] if seen else logits).float()


def with_embedding(model: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Map images [B, 3, H, W] in 0..255 to logits [B, num_classes] and to vectors.

    Args:
        model: In evaluation mode.
        images: Their mirror images count in the logits alone.

    Returns:
        The logits, and float32 [B, D]: what the last dense layer takes, or the logits of a network that does not end in
        one.
    """
    with _watched(model) as seen:
        logits = model(images)
    if not seen:
        return logits, embed_features(model, model.features(images)) if model.tta_flip else logits
    of_image = len(seen) // 2 if model.tta_flip else len(seen)  # the mirror image comes behind
    return logits, seen[of_image - 1].float()
