"""Values of more than 8 bits, read whole and scaled to 8 bits by one rule."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin

ValueRange = tuple[float, float]
"""The values that become black and white."""

WHOLE_16_BITS: ValueRange = (0.0, 65535.0)

_PHOTOMETRIC, _PLANAR, _BITS = 262, 284, 258  # tags of TIFF
_SWAPPED = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


@dataclass(frozen=True)
class DeepValues:
    """The values of an image deeper than 8 bits.

    Attributes:
        values: Of grey [H, W] or of colours [H, W, 3].
        alpha: Opacity in 0..1, [H, W]; None where all is opaque.
        full_scale: Whether the format says that 0 is black and 65535 white.
        inverted: Whether it says that low values are bright.
    """

    values: NDArray[Any]
    alpha: NDArray[np.float32] | None = None
    full_scale: bool = True
    inverted: bool = False

    @property
    def bounds(self) -> ValueRange:
        """Return the lowest and the highest value."""
        finite = self.values[np.isfinite(self.values)]
        return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)

    def rgb(self, value_range: ValueRange) -> Image.Image:
        """Scale a range of values to 0..255, cut what lies outside, and lay transparency over white."""
        low, high = value_range
        values: NDArray[Any] = self.values.astype(np.float32 if self.values.dtype.itemsize <= 2 else np.float64)
        values = (values - low) * (255 / max(high - low, 1e-12))
        values = np.nan_to_num(values, nan=0, posinf=255, neginf=0).clip(0, 255)
        if self.inverted:
            values = 255 - values
        if self.alpha is not None:
            alpha = self.alpha if values.ndim == 2 else self.alpha[..., None]
            values = values * alpha + 255 * (1 - alpha)
        return Image.fromarray(np.rint(values).astype(np.uint8)).convert("RGB")


def read_deep(image: ImageFile.ImageFile, reopen: Callable[[], ImageFile.ImageFile]) -> DeepValues | None:
    """Read the values of an image deeper than 8 bits; None for any other.

    Pillow has no colours of 16 bits: it keeps their high bytes. So they are read twice, the second time as if their
    bytes came in the other order, which gives the low ones.

    Args:
        image: Opened and not yet loaded.
        reopen: Opens it once more.

    Raises:
        Exception: Whatever Pillow's decoders stumble over.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        if _tag(image, _PLANAR) == 2 and image.tile[0].codec_name == "raw":  # a plane alone, which Pillow takes for red
            _set_raw_modes(image, [image.mode])
        image.load()
        full_scale = image.mode.startswith("I;16") or image.format == "PPM"
        return DeepValues(np.asarray(image), None, full_scale, _tag(image, _PHOTOMETRIC) == 0)
    modes = _raw_modes(image)
    if image.mode == "RGB" and image.format == "PPM":
        return _netpbm(image)
    if image.mode not in ("RGB", "RGBA") or not modes or ";16" not in modes[0]:
        return None
    if modes == ["LA;16B"]:
        _set_raw_modes(image, ["RGBA"])  # which gives the four bytes of each pixel as they are
        image.load()
        grey, alpha = np.moveaxis(np.ascontiguousarray(image).view(">u2"), -1, 0)
        return DeepValues(grey, alpha / np.float32(65535))
    premultiplied = modes[0].startswith("RGBa")
    modes = [mode.replace("RGBa", "RGBA") for mode in modes]
    _set_raw_modes(image, modes)
    image.load()
    with reopen() as again:
        _set_raw_modes(again, [mode[:-1] + _SWAPPED[mode[-1]] for mode in modes])
        again.load()
        values = np.asarray(image).astype(np.uint16) << 8 | np.asarray(again)
    if values.shape[2] == 3:
        return DeepValues(values)
    colours, alpha = values[..., :3], values[..., 3] / np.float32(65535)
    if premultiplied:
        colours = np.rint(colours / np.maximum(alpha, 1e-9)[..., None]).clip(0, 65535).astype(np.uint16)
    return DeepValues(colours, alpha)


def grey_values(image: Image.Image) -> DeepValues | None:
    """Return the values of a loaded grey image deeper than 8 bits; None for any other."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return DeepValues(np.asarray(image), None, image.mode.startswith("I;16"))
    return None


def _netpbm(image: ImageFile.ImageFile) -> DeepValues | None:
    """Read binary colours of two bytes, which Pillow scales to one; their highest value stands in the file."""
    tile = image.tile[0]
    most = tile.args[1] if isinstance(tile.args, tuple) else 0
    if tile.codec_name != "ppm" or most < 256 or image.fp is None:
        return None
    width, height = image.size
    image.fp.seek(tile.offset)
    content = image.fp.read(6 * width * height)
    if len(content) < 6 * width * height:
        raise OSError("image file is truncated")
    values = np.frombuffer(content, ">u2").reshape(height, width, 3)
    return DeepValues((values * (65535 / most)).astype(np.uint16))


def _raw_modes(image: ImageFile.ImageFile) -> list[str]:
    """Name how the bytes of each tile are to be understood."""
    modes = [tile.args if isinstance(tile.args, str) else str((tile.args or ("",))[0]) for tile in image.tile]
    if _tag(image, _PLANAR) == 2 and _tag(image, _BITS)[0] == 16 and set(modes) <= set("RGBA"):
        # Pillow takes the bytes of 16-bit planes that are not compressed for values of 8 bits.
        assert isinstance(image, TiffImagePlugin.TiffImageFile)
        return [f"{mode};16{'B' if image.tag_v2.prefix == b'MM' else 'L'}" for mode in modes]
    return modes


def _set_raw_modes(image: ImageFile.ImageFile, modes: list[str]) -> None:
    image.tile = [
        tile._replace(args=mode if isinstance(tile.args, str) else (mode, *(tile.args or ())[1:]))
        for tile, mode in zip(image.tile, modes, strict=True)
    ]


def _tag(image: Image.Image, number: int) -> Any:
    return image.tag_v2.get(number) if isinstance(image, TiffImagePlugin.TiffImageFile) else None
