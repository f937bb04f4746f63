"""Presets: augmentation of whole batches, on any device, from stateless draws."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kth_lightning.data.augmentation.augmentation import Augmentation
from kth_lightning.data.augmentation.warp import bilinear, erased, nearest, places, recolour
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

_KNOWN = (
    *("zoom_rows", "zoom_columns", "first_column"),
    # Of the column and the row that a pixel shows: what is added, and what rows and columns of the view count.
    *("middle_column", "middle_row"),
    *("column_by_row", "row_by_row"),
    *("column_by_column", "row_by_column"),
    *("gain", "grey", "mean_grey"),
    *("erase", "erased_top", "erased_bottom", "erased_left", "erased_right"),
)
_TOGETHER = (1, 1, 1, 2, 2, 2, 3, 5)
"""How many of them, in their order, are used together."""


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
        keys, views = (tensor.to(images.device, non_blocking=True) for tensor in (keys, views))
        height, width = images.shape[2:]
        changed = self.apply(images, self.parameters(keys, views, height, width))
        clean = (views == 0).view(-1, 1, 1, 1)
        return torch.where(clean, images, changed).contiguous(memory_format=torch.channels_last)

    def parameters(self, keys: Tensor, views: Tensor, height: int, width: int) -> Tensor:
        """Return all that `apply` needs to know of views, which can be asked for many images at once, [B, P].

        Args:
            keys: int64 [B], as `Augmentation` says.
            views: int64 [B] on the same device; not 0.
            height: Of the images in pixels.
            width: Of the images in pixels.
        """
        draws = self.draw(keys, views)
        offset = 0.5 if self.preset.keras else -0.5
        centre_row, centre_column = height / 2 + offset, width / 2 + offset
        turned, mirrored = draws["rotation"].deg2rad(), torch.where(draws["flip"], -1.0, 1.0)
        # The flip comes last: where it is, columns are counted from the right.
        first_column = torch.where(draws["flip"], centre_column - (width - 1), -centre_column)
        saturation = draws["saturation"].float() * (1 - draws["greyscale"].float())
        brightness, contrast = draws["brightness"].float(), draws["contrast"].float()
        known = {
            "zoom_rows": draws["zoom_rows"],
            "zoom_columns": draws["zoom_columns"] * mirrored,
            "first_column": first_column,
            "middle_row": centre_row + draws["shift_rows"] * height,
            "middle_column": centre_column + draws["shift_columns"] * width,
            "row_by_row": turned.cos(),
            "row_by_column": -(turned + draws["shear"]).sin(),
            "column_by_row": turned.sin(),
            "column_by_column": (turned + draws["shear"]).cos(),
            "gain": brightness * contrast * saturation,
            "grey": brightness * contrast * (1 - saturation),
            "mean_grey": brightness * (1 - contrast),
            "erase": draws["erase"],
            "erased_top": draws["erased_top"],
            "erased_bottom": draws["erased_top"] + draws["erased_height"],
            "erased_left": draws["erased_left"],
            "erased_right": draws["erased_left"] + draws["erased_width"],
        }
        return torch.stack([known[name].to(draws["zoom_rows"].dtype) for name in _KNOWN], dim=1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Return views of images, uint8 [B, 3, H, W], whose `parameters` [B, P] are known; not of views 0."""
        images = images.contiguous(memory_format=torch.channels_last)
        if self.preset == Preset():
            return images
        height, width = images.shape[2:]
        *geometry, colour, rectangle = parameters.view(*parameters.shape, 1, 1).split(_TOGETHER, 1)
        shown = places(geometry, height, width, centre_offset=0.5 if self.preset.keras else -0.5)
        if self.preset.keras:
            return nearest(images, shown)
        mean = images.sum((2, 3), keepdim=True, dtype=torch.int32) / (height * width)
        pixels = bilinear(images, shown)
        if self.preset.erasing:
            pixels = torch.where(erased(rectangle, height, width), mean, pixels)
        return recolour(pixels, mean, colour).round_().clamp_(0, 255).to(torch.uint8)

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
