"""Sheets of captioned images for TensorBoard."""

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from kth_lightning.drawing.captions import fitted, write_text

COLUMNS = 4
TILE = 128
"""Side in pixels of an image on a sheet."""


def resized(images: Tensor, size: int) -> Tensor:
    """Resize images [N, C, H, W] to float32 [N, C, size, size]."""
    return F.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True)


def tiles(images: Tensor) -> np.ndarray:
    """Turn images [N, 3, H, W] in 0..255 into uint8 [N, tile, tile, 3]."""
    return resized(images, TILE).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def contact_sheet(images: np.ndarray, captions: list[str]) -> np.ndarray:
    """Lay images of one size out in rows, each above its caption; uint8 [height, width, 3]."""
    text, gap, line = 13, 8, 17
    width = TILE + gap
    height = width + line * max(caption.count("\n") + 1 for caption in captions)
    sheet = Image.new("RGB", (COLUMNS * width + gap, -(-len(images) // COLUMNS) * height + gap), "white")
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = number % COLUMNS * width + gap, number // COLUMNS * height + gap
        sheet.paste(Image.fromarray(image), (left, top))
        for row, caption_line in enumerate(caption.split("\n")):
            position = (left + TILE / 2, top + TILE + 3 + row * line)
            write_text(sheet, position, fitted(caption_line, TILE, text), text, align="center")
    return np.asarray(sheet)
