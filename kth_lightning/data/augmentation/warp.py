"""The pixels of a view: where in the clean image each comes from, and which colour it gets.

What is known of the images of a batch comes as tensors [B, N, 1, 1], of N numbers that are used together: a device gets
as few operators as the bits of the views allow.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def places(known: list[Tensor], height: int, width: int, centre_offset: float) -> Tensor:
    """Return the column and the row [B, 2, H, W] of the clean image that each pixel of the view shows.

    The matrix is Keras's rotation · shear · zoom on (row, column), multiplied out; the flip comes last.
    """
    zoom_rows, zoom_columns, first_column, middle, by_row, by_column = known
    row, column = _axes(height, width, height / 2 + centre_offset, middle.dtype, middle.device)
    row, column = row * zoom_rows, (column + first_column) * zoom_columns
    return (middle + row * by_row) + column * by_column


@lru_cache(maxsize=8)
def _axes(height: int, width: int, centre: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the rows [H, 1], counted from their centre, and the columns [1, W] of an image."""
    row = torch.arange(height, device=device, dtype=dtype).view(-1, 1) - centre
    return row, torch.arange(width, device=device, dtype=dtype).view(1, -1)


@lru_cache(maxsize=32)
def _constants(*values: float, device: torch.device) -> Tensor:
    """Return a number for each channel, float32 [N, 1, 1], which is brought to the device once."""
    return torch.tensor(values, device=device).view(-1, 1, 1)


def nearest(images: Tensor, places: Tensor) -> Tensor:
    """Take the nearest pixels of images uint8 [B, 3, H, W] at places [B, 2, H, W], beyond it its border."""
    batch, channels, height, width = images.shape
    columns, rows = (places + 0.5).floor_().unbind(1)
    rows, columns = rows.clamp_(0, height - 1), columns.clamp_(0, width - 1)
    first = torch.arange(batch, device=images.device).view(-1, 1, 1) * (height * width)
    positions = (rows * width + columns).long().add_(first)
    pixels = images.permute(0, 2, 3, 1).reshape(-1, channels)
    return pixels.index_select(0, positions.flatten()).view(batch, height, width, channels).permute(0, 3, 1, 2)


def bilinear(images: Tensor, places: Tensor) -> Tensor:
    """Mix the four pixels around places [B, 2, H, W], reflected at the border, as float32 [B, 3, H, W]."""
    height, width = images.shape[2:]
    scale = _constants(2 / width, 2 / height, device=images.device)
    shift = _constants(1 / width - 1, 1 / height - 1, device=images.device)
    grid = places.float().mul_(scale).add_(shift).permute(0, 2, 3, 1)
    return grid_sample(images.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def erased(known: Tensor, height: int, width: int) -> Tensor:
    """Tell which pixels are filled with the mean colour, bool [B, 1, H, W]."""
    erase, top, bottom, left, right = known.split(1, 1)
    row = (torch.arange(height, device=top.device).view(-1, 1) + 0.5) / height
    column = (torch.arange(width, device=top.device).view(1, -1) + 0.5) / width
    inside_rows = (row >= top) & (row < bottom) & (erase != 0)
    return inside_rows & (column >= left) & (column < right)


def _luma(pixels: Tensor) -> Tensor:
    red, green, blue = (pixels * _constants(0.299, 0.587, 0.114, device=pixels.device)).split(1, 1)
    return red + green + blue


def recolour(pixels: Tensor, mean: Tensor, known: Tensor) -> Tensor:
    """Change brightness, contrast about the image's mean luma, then saturation: one weighted sum in all."""
    gain, grey, mean_grey = known.float().split(1, 1)
    return pixels * gain + (_luma(pixels) * grey + _luma(mean) * mean_grey)
