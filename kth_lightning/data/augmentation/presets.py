"""Presets: augmentation of whole batches, on any device, from stateless draws."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from kth_lightning.data.augmentation.augmentation import Augmentation
from kth_lightning.data.stateless_random import uniform


@dataclass(frozen=True)
class Preset:
    """Say how far one view may differ from the clean image; the defaults change nothing.

    Attributes:
        flip: Probability of a horizontal flip.
        rotation: Largest angle in degrees, either way.
        shear: Largest angle in radians, either way.
        zoom: Least and largest share of a side that is seen, drawn for each side apart.
        area: Least and largest share of the image's area that is seen, uniform in the logarithm. Where it is less
            than the whole, any part may be seen.
        aspect: Least and largest stretch of width against height, uniform in the logarithm.
        translation: Largest shift along each side, as a share of it.
        brightness: Largest change of the factor 1.
        contrast: Largest change of the factor 1.
        saturation: Largest change of the factor 1.
        greyscale: Probability that the colours go.
        erasing: Probability that a rectangle is filled with the image's mean colour.
        keras: Resample as Keras 2.0 did: the nearest pixel, border pixels repeated, about a centre one pixel below and
            right of the true one. Otherwise bilinear, reflected at the border, about the true centre.
    """

    flip: float = 0.0
    rotation: float = 0.0
    shear: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    area: tuple[float, float] = (1.0, 1.0)
    aspect: tuple[float, float] = (1.0, 1.0)
    translation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    greyscale: float = 0.0
    erasing: float = 0.0
    keras: bool = False


PRESETS = {
    "none": Preset(),
    "flip": Preset(flip=0.5, keras=True),
    "blog": Preset(flip=0.5, rotation=10, shear=0.2, zoom=(0.8, 1.2), keras=True),
    "standard": Preset(
        flip=0.5,
        rotation=15,
        shear=0.1,
        area=(0.64, 1.5625),
        aspect=(0.87, 1.15),
        translation=0.1,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
    ),
    "strong": Preset(
        flip=0.5,
        rotation=20,
        shear=0.1,
        area=(0.35, 1.0),
        aspect=(3 / 4, 4 / 3),
        brightness=0.4,
        contrast=0.4,
        saturation=0.5,
        greyscale=0.1,
        erasing=0.25,
    ),
}

# A parameter's place here is a counter of its draws: append, never reorder, or every stored view changes.
_PARAMETERS = (
    "flip",
    "rotation",
    "shear",
    "zoom_rows",
    "zoom_columns",
    "area",
    "aspect",
    "shift_rows",
    "shift_columns",
    "brightness",
    "contrast",
    "saturation",
    "greyscale",
    "erase",
    "erased_height",
    "erased_width",
    "erased_top",
    "erased_left",
)


class PresetAugmentation(Augmentation):
    """Views of images as a preset says how far they may differ.

    Args:
        preset: A key of `PRESETS`.
        seed: Another seed gives other views.
    """

    def __init__(self, preset: str, seed: int = 0) -> None:
        self.preset = PRESETS[preset]
        self.seed = seed

    @property
    def identity(self) -> str:
        """Return what the views depend on: a preset draws the same in every version, or gets another name."""
        return f"{self.preset} {self.seed}"

    def __call__(self, images: Tensor, keys: Tensor, views: Tensor) -> Tensor:
        """Return one view of each image, as `Augmentation` says; the result is channels_last."""
        images = images.contiguous(memory_format=torch.channels_last)
        if self.preset == Preset():
            return images
        keys, views = (tensor.to(images.device, non_blocking=True) for tensor in (keys, views))
        draws = self.draw(keys, views)
        height, width = images.shape[2:]
        rows, columns = _coordinates(draws, height, width, centre_offset=0.5 if self.preset.keras else -0.5)
        if self.preset.keras:
            augmented = _nearest(images, rows, columns)
        else:
            mean = images.sum((2, 3), keepdim=True, dtype=torch.int32) / (height * width)
            pixels = _bilinear(images, rows, columns)
            if self.preset.erasing:
                pixels = torch.where(_erased(draws, height, width), mean, pixels)
            augmented = _recolour(pixels, mean, draws).round_().clamp_(0, 255).to(torch.uint8)
        clean = (views == 0).view(-1, 1, 1, 1)
        return torch.where(clean, images, augmented).contiguous(memory_format=torch.channels_last)

    def draw(self, keys: Tensor, views: Tensor) -> dict[str, Tensor]:
        """Return what is drawn for each image, as tensors [B] on the keys' device.

        `rotation` is in degrees, `shear` in radians; `zoom_rows` and `zoom_columns` are the share of the height and
        width that is seen; `shift_*` and `erased_*` are shares of them too; `brightness`, `contrast` and `saturation`
        are factors; `flip`, `greyscale` and `erase` are bool. What is drawn for view 0 is not used.
        """
        preset = self.preset
        counters = torch.arange(len(_PARAMETERS), device=keys.device).unsqueeze(1)
        # MPS has no float64; elsewhere it makes the nearest pixel the same as SciPy's.
        precise = torch.float32 if keys.device.type == "mps" else torch.float64
        numbers = uniform(self.seed, keys, views, counters).to(precise)
        u = dict(zip(_PARAMETERS, numbers, strict=True))
        area = _between(u["area"], preset.area, logarithmic=True)
        aspect = _between(u["aspect"], preset.aspect, logarithmic=True)
        height, width = (area / aspect).sqrt(), (area * aspect).sqrt()
        erased_height, erased_width = 0.1 + 0.4 * u["erased_height"], 0.1 + 0.4 * u["erased_width"]
        return {
            "flip": u["flip"] < preset.flip,
            "rotation": _around(0, u["rotation"], preset.rotation),
            "shear": _around(0, u["shear"], preset.shear),
            "zoom_rows": _between(u["zoom_rows"], preset.zoom) * height,
            "zoom_columns": _between(u["zoom_columns"], preset.zoom) * width,
            "shift_rows": _around(0, u["shift_rows"], preset.translation + (1 - height).clamp(min=0) / 2),
            "shift_columns": _around(0, u["shift_columns"], preset.translation + (1 - width).clamp(min=0) / 2),
            "brightness": _around(1, u["brightness"], preset.brightness),
            "contrast": _around(1, u["contrast"], preset.contrast),
            "saturation": _around(1, u["saturation"], preset.saturation),
            "greyscale": u["greyscale"] < preset.greyscale,
            "erase": u["erase"] < preset.erasing,
            "erased_height": erased_height,
            "erased_width": erased_width,
            "erased_top": u["erased_top"] * (1 - erased_height),
            "erased_left": u["erased_left"] * (1 - erased_width),
        }


def _around(centre: float, u: Tensor, spread: float | Tensor) -> Tensor:
    return centre + (2 * u - 1) * spread


def _between(u: Tensor, limits: tuple[float, float], logarithmic: bool = False) -> Tensor:
    low, high = limits
    return low * (high / low) ** u if logarithmic else low + (high - low) * u


def _coordinates(draws: dict[str, Tensor], height: int, width: int, centre_offset: float) -> tuple[Tensor, Tensor]:
    """Return the row and the column [B, H, W] of the clean image that each pixel of the view shows.

    The matrix is Keras's rotation · shear · zoom on (row, column), multiplied out; the flip comes last.
    """
    flip, rotation, shear, zoom_rows, zoom_columns, shift_rows, shift_columns = (
        draws[name].view(-1, 1, 1)
        for name in ("flip", "rotation", "shear", "zoom_rows", "zoom_columns", "shift_rows", "shift_columns")
    )
    rotation = rotation.deg2rad()
    centre_row, centre_column = height / 2 + centre_offset, width / 2 + centre_offset
    row = torch.arange(height, device=rotation.device, dtype=rotation.dtype).view(1, -1, 1)
    column = torch.arange(width, device=rotation.device, dtype=rotation.dtype).view(1, 1, -1)
    column = torch.where(flip, width - 1 - column, column)
    row, column = (row - centre_row) * zoom_rows, (column - centre_column) * zoom_columns
    return (
        (centre_row + shift_rows * height + row * rotation.cos()) - column * (rotation + shear).sin(),
        (centre_column + shift_columns * width + row * rotation.sin()) + column * (rotation + shear).cos(),
    )


def _nearest(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    batch, channels, height, width = images.shape
    rows = (rows + 0.5).floor_().clamp_(0, height - 1)
    columns = (columns + 0.5).floor_().clamp_(0, width - 1)
    first = torch.arange(batch, device=images.device).view(-1, 1, 1) * (height * width)
    positions = (rows * width + columns).long().add_(first)
    pixels = images.permute(0, 2, 3, 1).reshape(-1, channels)
    return pixels.index_select(0, positions.flatten()).view(batch, height, width, channels).permute(0, 3, 1, 2)


def _bilinear(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    height, width = images.shape[2:]
    x = columns.float().mul_(2 / width).add_(1 / width - 1)
    y = rows.float().mul_(2 / height).add_(1 / height - 1)
    grid = torch.stack((x, y), dim=-1)
    return grid_sample(images.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _erased(draws: dict[str, Tensor], height: int, width: int) -> Tensor:
    top, left, tall, wide = (draws[f"erased_{name}"].view(-1, 1, 1, 1) for name in ("top", "left", "height", "width"))
    row = (torch.arange(height, device=top.device).view(1, 1, -1, 1) + 0.5) / height
    column = (torch.arange(width, device=top.device).view(1, 1, 1, -1) + 0.5) / width
    inside_rows = (row >= top) & (row < top + tall) & draws["erase"].view(-1, 1, 1, 1)
    return inside_rows & (column >= left) & (column < left + wide)


def _luma(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _recolour(pixels: Tensor, mean: Tensor, draws: dict[str, Tensor]) -> Tensor:
    """Change brightness, contrast about the image's mean luma, then saturation: one weighted sum in all."""
    brightness, contrast, saturation, greyscale = (
        draws[name].float().view(-1, 1, 1, 1) for name in ("brightness", "contrast", "saturation", "greyscale")
    )
    saturation = saturation * (1 - greyscale)
    gain = brightness * contrast
    grey = _luma(pixels) * (gain * (1 - saturation)) + _luma(mean) * (brightness * (1 - contrast))
    return pixels * (gain * saturation) + grey
