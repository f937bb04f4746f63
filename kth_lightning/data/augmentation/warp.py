"""The pixels of a view: where in the clean image each comes from, and which colour it gets."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def coordinates(known: dict[str, Tensor], height: int, width: int, centre_offset: float) -> tuple[Tensor, Tensor]:
    """Return the row and the column [B, H, W] of the clean image that each pixel of the view shows.

    The matrix is Keras's rotation · shear · zoom on (row, column), multiplied out; the flip comes last.
    """
    zoom = known["zoom_rows"]
    row, column = _axes(height, width, height / 2 + centre_offset, zoom.dtype, zoom.device)
    row, column = row * zoom, (column + known["first_column"]) * known["zoom_columns"]
    return (
        (known["middle_row"] + row * known["row_by_row"]) - column * known["row_by_column"],
        (known["middle_column"] + row * known["column_by_row"]) + column * known["column_by_column"],
    )


@lru_cache(maxsize=8)
def _axes(height: int, width: int, centre: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the rows [1, H, 1], counted from their centre, and the columns [1, 1, W] of an image."""
    row = torch.arange(height, device=device, dtype=dtype).view(1, -1, 1) - centre
    return row, torch.arange(width, device=device, dtype=dtype).view(1, 1, -1)


def nearest(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Take the nearest pixels of images uint8 [B, 3, H, W] at rows and columns [B, H, W], beyond it its border."""
    batch, channels, height, width = images.shape
    rows = (rows + 0.5).floor_().clamp_(0, height - 1)
    columns = (columns + 0.5).floor_().clamp_(0, width - 1)
    first = torch.arange(batch, device=images.device).view(-1, 1, 1) * (height * width)
    positions = (rows * width + columns).long().add_(first)
    pixels = images.permute(0, 2, 3, 1).reshape(-1, channels)
    return pixels.index_select(0, positions.flatten()).view(batch, height, width, channels).permute(0, 3, 1, 2)


def bilinear(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Mix the four pixels around rows and columns [B, H, W], reflected at the border, as float32 [B, 3, H, W]."""
    height, width = images.shape[2:]
    x = columns.float().mul_(2 / width).add_(1 / width - 1)
    y = rows.float().mul_(2 / height).add_(1 / height - 1)
    grid = torch.stack((x, y), dim=-1)
    return grid_sample(images.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def erased(known: dict[str, Tensor], height: int, width: int) -> Tensor:
    """Tell which pixels are filled with the mean colour, bool [B, 1, H, W]."""
    top, bottom, left, right, erase = (
        known[name].unsqueeze(1) for name in ("erased_top", "erased_bottom", "erased_left", "erased_right", "erase")
    )
    row = (torch.arange(height, device=top.device).view(1, 1, -1, 1) + 0.5) / height
    column = (torch.arange(width, device=top.device).view(1, 1, 1, -1) + 0.5) / width
    inside_rows = (row >= top) & (row < bottom) & (erase != 0)
    return inside_rows & (column >= left) & (column < right)


def _luma(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def recolour(pixels: Tensor, mean: Tensor, known: dict[str, Tensor]) -> Tensor:
    """Change brightness, contrast about the image's mean luma, then saturation: one weighted sum in all."""
    gain, grey, mean_grey = (known[name].unsqueeze(1).float() for name in ("gain", "grey", "mean_grey"))
    return pixels * gain + (_luma(pixels) * grey + _luma(mean) * mean_grey)
