"""Places at which the sample is drawn, as camera traps stand at: each with a background, a light and a camera."""

from functools import cached_property

import numpy as np
from PIL import Image, ImageFilter

from kth_lightning.data.sources.sample_drawing import ANIMALS, draw_background, draw_clouds, shift_colours, to_bytes

_VIEW = (432, 432)  # pixels of a background, of which a photograph shows most
_UNEVEN = 0.3  # of a place's mixture of animals: lower for fewer kinds at each
_ANYWHERE = 0.1  # share of the animals that live everywhere


class SampleSite:
    """A place with a background of its own, seen by a camera of its own in a light of its own.

    Args:
        seed: Of the sample.
        number: Of the place.
    """

    def __init__(self, seed: int, number: int) -> None:
        self._seeds = [seed, number, 1]
        rng = np.random.default_rng([*self._seeds, 0])
        self.name = f"site {number + 1:02d}"
        self.mixture = (1 - _ANYWHERE) * rng.dirichlet([_UNEVEN] * len(ANIMALS)) + _ANYWHERE / len(ANIMALS)
        self._hue, self._saturation, self._gains = rng.normal(0, 20), rng.uniform(0.3, 1.2), rng.uniform(0.75, 1.15, 3)
        self._blur, self._light = rng.uniform(0, 2), rng.uniform(0.45, 1.1)
        self._haze, self._noise = rng.uniform(-10, 80), rng.uniform(0, 28)

    @cached_property
    def _view(self) -> Image.Image:
        return draw_background(np.random.default_rng([*self._seeds, 1]), _VIEW)

    def background(self, rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
        """Return the background as the camera sees it, which wind and people have moved a little."""
        left, top = rng.uniform(0, 0.06, 2) * _VIEW
        right, bottom = _VIEW - rng.uniform(0, 0.06, 2) * _VIEW
        return self._view.resize(size, Image.Resampling.BILINEAR, (left, top, right, bottom))

    def photograph(self, rng: np.random.Generator, scene: Image.Image) -> Image.Image:
        """Give a scene this place's light and its camera's faults, which vary little from image to image."""
        gains = self._gains * rng.uniform(0.95, 1.05, 3)
        image = shift_colours(scene.convert("RGB"), self._hue + rng.normal(0, 4), self._saturation, gains)
        image = image.filter(ImageFilter.GaussianBlur(self._blur + rng.uniform(0, 0.4)))
        pixels = np.asarray(image, dtype=np.float32)
        light = self._light * rng.uniform(0.8, 1.2) + rng.uniform(0, 0.25) * draw_clouds(rng, image.size, 0.4)
        noise = self._noise * rng.standard_normal(light.shape, dtype=np.float32)
        haze = self._haze + rng.uniform(-8, 8) + noise
        return Image.fromarray(to_bytes(pixels * light[..., None] + haze[..., None]))
