"""What images are like apart from what they show: how bright, how sharp and how large."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kth_lightning.data.module import ImageData

_BATCH = 64
_LUMA = (0.299, 0.587, 0.114)  # of R'G'B', ITU-R BT.601


def image_statistics(data: ImageData, index: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.float64]]:
    """Measure images as the model sees them, resized.

    Args:
        data: The images, set up.
        index: Their indices in the catalogue, N of them.

    Returns:
        Of shape [N]: "brightness", the mean luma from 0 to 1; "sharpness", the variance of the luma's Laplacian, low in
        what is blurred or was enlarged; "megapixels", of the file.
    """
    measured = [_look(data.pixels.fetch(part)) for part in torch.from_numpy(index).split(_BATCH)]
    images = [data.catalogue.images[position] for position in index]
    return {
        "brightness": torch.cat([brightness for brightness, _ in measured]).double().numpy(),
        "sharpness": torch.cat([sharpness for _, sharpness in measured]).double().numpy(),
        "megapixels": np.array([image.width * image.height / 1e6 for image in images]),
    }


def _look(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the brightness and the sharpness of uint8 [B, H, W, 3], each [B]."""
    luma = pixels.float() @ torch.tensor(_LUMA) / 255
    inner = luma[:, 1:-1, 1:-1]
    around = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]
    return luma.mean((1, 2)), (around - 4 * inner).var((1, 2))
