"""Masks: which pixels of an image show which of its objects."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from kth_lightning.data.box import Box
from kth_lightning.data.catalogue import MaskBackground

_LOSSY = "JPEG"
_LEAST = 128  # of 0..255: around its edges a JPEG file has values that were not drawn


def read_mask(file: Path, background: MaskBackground) -> npt.NDArray[np.int64] | None:
    """Read a mask as 1..n for its objects, by their values in the file, and 0 for all else, [H, W].

    Values are what the file holds: of a palette the places, of colours all three, without transparency. Where 0 is the
    background, a JPEG file shows one object, wherever a value is 128 or more.

    Args:
        file: Of an upright mask.
        background: Which value is all else.

    Returns:
        None where the file cannot be read.
    """
    try:
        with Image.open(file) as image:
            values, lossy = np.asarray(image), image.format == _LOSSY
    except Exception:  # Pillow's parsers raise whatever the broken bytes make them stumble over
        return None
    if background == "highest":
        values = values[..., 0] if values.ndim == 3 else values
        return _numbered(values, values == values.max())
    if values.ndim == 3:
        colours = values[..., :3] if values.shape[2] > 2 else values[..., :1]
        if lossy:
            values = colours.max(axis=2)
        else:
            values = (colours.astype(np.int64) << [8 * place for place in range(colours.shape[2])]).sum(axis=2)
    if lossy:
        return (values >= _LEAST).astype(np.int64)
    return _numbered(values, values == 0)


def objects_in(mask: npt.NDArray[np.int64], box: Box | None) -> npt.NDArray[np.int64] | None:
    """Return a box of a mask that `read_mask` read, with its own objects as 1..n; None where it shows none.

    Args:
        mask: Shape [H, W].
        box: The part that is wanted; all of it where it is None.
    """
    if box is not None:
        left, upper, right, lower = box.pixels((mask.shape[1], mask.shape[0]))
        mask = mask[upper:lower, left:right]
    return _numbered(mask, mask == 0) if mask.any() else None


def _numbered(values: npt.NDArray[np.generic], other: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    numbers = np.zeros(values.shape, dtype=np.int64)
    _, order = np.unique(values[~other], return_inverse=True)
    numbers[~other] = order.reshape(-1) + 1
    return numbers
