"""Images that are looked at again and again while a network trains."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from kth_lightning.drawing.names import picture_names
from kth_lightning.explain.cam import activation_maps, class_maps
from kth_lightning.explain.contact_sheet import contact_sheet, tiles
from kth_lightning.explain.overlay import overlay
from kth_lightning.models import Classifier


class CamSnapshots:
    """Look at some images again and again; what the frozen trunk makes of them is computed once where that suffices.

    Args:
        model: In evaluation mode whenever this is used.
        images: RGB images [B, 3, H, W] in 0..255, on the model's device.
        labels: Their true classes, int64 [B], there too.
    """

    def __init__(self, model: Classifier, images: Tensor, labels: Tensor) -> None:
        self.model = model
        self.images = images
        self.labels = labels
        self.exact = model.class_activation()
        if self.exact is not None:
            shown = [images, images.flip(3)] if model.tta_flip else [images]
            with inputs_of(self.exact[0]) as unpooled:
                self.features = [model.features(item) for item in shown]
            self.unpooled = unpooled  # empty where the tail pools

    def sheet(self) -> np.ndarray:
        """Lay over each image what speaks for its true class; uint8 [height, width, 3]."""
        logits, maps = self.maps()
        shown = [
            np.asarray(overlay(Image.fromarray(tile), map_))
            for tile, map_ in zip(tiles(self.images), maps.float().cpu().numpy(), strict=True)
        ]
        names, captions = picture_names(self.model.class_names), []
        for row, label in zip(logits.float().softmax(1), self.labels.tolist(), strict=True):
            guess = int(row.argmax())
            mistake = "" if guess == label else f"\nsays {names[guess]} {row[guess]:.0%}"
            captions.append(f"{names[label]} {row[label]:.0%}{mistake}")
        return contact_sheet(np.stack(shown), captions)

    def maps(self) -> tuple[Tensor, Tensor]:
        """Return logits [B, C] and the true class's map of each image [B, h, w], as `activation_maps` makes them.

        Raises:
            InputError: The network has no maps.
        """
        if self.exact is None:
            logits, maps = activation_maps(self.model, self.images, self.labels[:, None])
            return logits, maps[:, 0]
        pool, dense = self.exact
        with inputs_of(pool) as unpooled:
            logits = torch.stack([self.model.tail(item).float() for item in self.features]).mean(0)
        maps = class_maps(dense, self.unpooled or unpooled)
        return logits, maps[torch.arange(len(maps)), self.labels]


@contextmanager
def inputs_of(*modules: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what goes into modules."""
    collected: list[Tensor] = []
    hooks = [module.register_forward_pre_hook(lambda _, inputs: collected.append(inputs[0])) for module in modules]
    try:
        yield collected
    finally:
        for hook in hooks:
            hook.remove()
