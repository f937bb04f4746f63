"""Several networks that look at the same images, each for itself."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kth_lightning.errors import InputError
from kth_lightning.models.weights import networks_of


class SideBySide(nn.Module):
    """Lay the maps of several networks on one another: their channels stand side by side.

    Args:
        networks: Each from images [B, 3, H, W] in 0..255 to maps [B, D, h, w].
        name: Of the backbone, for the message.
        image_size: Height and width of the images that they will be given.

    Raises:
        InputError: Their maps of such images differ in size.
    """

    def __init__(self, networks: Sequence[nn.Module], name: str, image_size: int) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        images = torch.zeros(1, 3, image_size, image_size)
        with torch.no_grad():
            sizes = [tuple(network(images).shape[2:]) for network in self.networks.eval()]
        self.train()
        if len({*sizes}) > 1:
            shown = ", ".join(
                f"{size[0]} x {size[1]} of {part}" for part, size in zip(networks_of(name), sizes, strict=True)
            )
            nearly = max(size[0] for size in sizes) - min(size[0] for size in sizes) == 1  # some round up, some down
            other = f"another --data.image_size, such as {max(round(image_size / 32), 2) * 32}, or " if nearly else ""
            raise InputError(
                f"--model.backbone {name}: networks stand side by side where their maps have one size, and for images "
                f"of {image_size} pixels these have {shown}; give {other}networks that go together"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, 3, H, W] in 0..255 to maps [B, sum of all D, h, w]."""
        return torch.cat([network(images) for network in self.networks], 1)
