"""The data module of a run, for the callbacks that look at it."""

import lightning as L
import numpy as np
import torch
from torch import Tensor

from kth_lightning.data.module import ImageData


def image_data(trainer: L.Trainer) -> ImageData:
    """Return the images that a trainer trains on."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, ImageData)
    return data


def spread(index: np.ndarray, number: int) -> Tensor:
    """Choose images evenly from a list, which is sorted by class: int64 [at most `number`]."""
    return torch.from_numpy(index[np.linspace(0, len(index) - 1, min(number, len(index))).astype(int)])
