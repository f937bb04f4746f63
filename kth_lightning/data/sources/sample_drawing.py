"""The drawings of the sample: one scene with animals of a class, and the mask of what can be seen of them."""

import math
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

ANIMALS = {
    "bear": "🐻",
    "cow": "🐮🐄",
    "deer": "🦌",
    "elephant": "🐘",
    "giraffe": "🦒",
    "goat": "🐐",
    "gorilla": "🦍",
    "horse": "🐴🐎",
    "kangaroo": "🦘",
    "leopard": "🐆",
    "lion": "🦁",
    "panda": "🐼",
    "penguin": "🐧",
    "sheep": "🐑🐏",
    "skunk": "🦨",
    "tiger": "🐯🐅",
    "wolf": "🐺",
    "zebra": "🦓",
}
PLANTS = "🌵🌲🌳🌴🌾🌿🍀🍁🍂🍃🌷🌹🌻🌼🪨🪵🪴🎋🌱🍄"
THINGS = PLANTS + "🏠🏚⛺🚗🚙🚚🚜🚲🚌⛵🚂🍎🍐🍊🍌🍉🍇🥕🌽🥦🎈⚽🏀🎁🪣🧺🪑🛋☂⛅🌙⭐🧱📦🚧🛢⚓🎒🎸🪁🛴🔔⛲🪜🚪🪟🧳🍍🛖🗼"

_SIDES = (192, 288)  # pixels
_GLYPH = 288  # pixels, of the font

_Size = tuple[int, int]


class Site(Protocol):
    """A place with a background and a camera of its own."""

    def background(self, rng: np.random.Generator, size: _Size) -> Image.Image:
        """Draw what stands behind the animals, RGBA."""

    def photograph(self, rng: np.random.Generator, scene: Image.Image) -> Image.Image:
        """Give the scene this place's light and its camera's faults."""


def draw(label: str, rng: np.random.Generator, font: Path, site: Site | None = None) -> tuple[Image.Image, Image.Image]:
    """Draw an image of one or two animals of a class and the mask of what can be seen of them.

    Returns:
        The RGB image, and the mask of the same size: 1..n for the animals, n + 1 for the background.
    """
    size = (int(rng.integers(*_SIDES, endpoint=True)), int(rng.integers(*_SIDES, endpoint=True)))
    scene = site.background(rng, size) if site else draw_background(rng, size)
    for _ in range(rng.integers(0, 2)):
        scene.alpha_composite(_placed(rng, size, _drawing(rng, THINGS, font), (0.08, 0.18), 0.5))
    scene = scene.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.5)))  # what lies behind may be out of focus

    layers = [_placed(rng, size, _drawing(rng, ANIMALS[label], font), (0.95, 1.15), 0.06)]
    if rng.random() < 0.08:
        layers.append(_placed(rng, size, _drawing(rng, ANIMALS[label], font), (0.35, 0.6), 0.06))
    of_class = len(layers)
    if rng.random() < 0.3:
        layers.append(_occluder(rng, size, font))

    seen: list[np.ndarray] = []  # where each animal shows
    drawn: list[int] = []  # its pixels before anything hid it
    for number, layer in enumerate(layers):
        cover = np.asarray(layer.getchannel("A")) > 127
        left = [animal & ~cover for animal in seen]
        if any(animal.sum() < 0.6 * whole for animal, whole in zip(left, drawn, strict=True)):
            continue
        scene.alpha_composite(layer)
        seen = left
        if number < of_class:
            seen.append(cover)
            drawn.append(int(cover.sum()))

    mask = np.full(size[::-1], len(seen) + 1, dtype=np.uint8)
    for number, animal in enumerate(seen, start=1):
        mask[animal] = number
    image = site.photograph(rng, scene) if site else _photographed(rng, scene)
    return image, Image.fromarray(mask)


def draw_background(rng: np.random.Generator, size: _Size) -> Image.Image:
    """Draw what stands behind the animals: a texture, and perhaps a ground before it; RGBA."""
    scene = draw_texture(rng, size)
    if rng.random() < 0.5:  # a ground before it, with an uneven horizon
        skyline = np.interp(np.linspace(0, 8, size[0]), np.arange(9), rng.normal(0, 0.04, 9)) + rng.uniform(0.25, 0.75)
        ground = np.linspace(0, 1, size[1])[:, None] > skyline
        scene.paste(draw_texture(rng, size), mask=Image.fromarray(ground))
    return scene


def draw_texture(rng: np.random.Generator, size: _Size) -> Image.Image:
    """Colour a random field (a slope, clouds, waves, or a mixture) by a random palette, smoothly or in steps."""
    y, x = np.ogrid[-1 : 1 : size[1] * 1j, -1 : 1 : size[0] * 1j]
    angle = rng.uniform(0, 2 * math.pi)
    slope = (x * math.cos(angle) + y * math.sin(angle)).astype(np.float32)
    clouds = draw_clouds(rng, size, rng.uniform(0.3, 0.8))
    waves = np.sin(rng.uniform(5, 40) * (slope + rng.uniform(0, 0.6) * clouds))
    parts = rng.dirichlet((0.5, 0.7, 0.3)).astype(np.float32)
    field = parts[0] * slope + parts[1] * 2 * clouds + parts[2] * waves
    field = (field - field.min()) / (np.ptp(field) + 1e-6)
    stops = 0.3 * rng.uniform(20, 245, (4, 3)) + 0.7 * rng.uniform(40, 220, 3)
    steps = np.linspace(0, 3, 256)
    if rng.random() < 0.3:
        steps = steps.round()
    colours = np.stack([np.interp(steps, np.arange(4), channel) for channel in stops.T], axis=-1)
    texture = Image.fromarray(to_bytes(field * 255)).convert("P")
    texture.putpalette(to_bytes(colours).tobytes())
    return texture.convert("RGBA")


def draw_clouds(rng: np.random.Generator, size: _Size, roughness: float) -> np.ndarray:
    """Add up smooth noise of doubling frequency; zero mean, (height, width)."""
    field = np.zeros(size[::-1], dtype=np.float32)
    for octave in range(5):
        cells = rng.normal(0, roughness**octave, (2 ** (octave + 1), 2 ** (octave + 1))).astype(np.float32)
        field += np.asarray(Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC))
    return field - field.mean()


def _occluder(rng: np.random.Generator, size: _Size, font: Path) -> Image.Image:
    kind = rng.random()
    if kind < 0.6:
        return _placed(rng, size, _drawing(rng, PLANTS, font), (0.1, 0.25), 0.6)
    if kind < 0.7:
        return _fence(rng, size)
    layer = draw_texture(rng, size)
    layer.putalpha(Image.fromarray(draw_clouds(rng, size, 0.5) > rng.uniform(1.2, 2.0)))
    return layer


def _fence(rng: np.random.Generator, size: _Size) -> Image.Image:
    layer = Image.new("RGBA", size)
    pen = ImageDraw.Draw(layer)
    colour = tuple(int(part) for part in rng.integers(10, 200, 3))
    lean = rng.uniform(-40, 40)
    gap, width = rng.uniform(35, 80), int(rng.integers(2, 8))
    for left in np.arange(rng.uniform(-gap, 0), size[0] + gap, gap):
        pen.line((left, -5, left + lean, size[1] + 5), fill=colour, width=width)
    return layer


def _placed(
    rng: np.random.Generator, size: _Size, drawing: Image.Image, share: tuple[float, float], outside: float
) -> Image.Image:
    """Flip, stretch, warp, turn and scale a drawing, and put it on an empty layer.

    Args:
        rng: Source of all choices.
        size: Width and height of the layer in pixels.
        drawing: RGBA, cut to what is drawn.
        share: Least and largest scale; 1 fills the layer.
        outside: The part of the drawing that may lie beyond the border.
    """
    if rng.random() < 0.5:
        drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scale = rng.uniform(*share) * min(outer / inner for outer, inner in zip(size, drawing.size, strict=True))
    stretch = rng.uniform(0.85, 1.18)
    drawing = drawing.resize(
        (max(8, int(drawing.width * scale * stretch)), max(8, int(drawing.height * scale / stretch)))
    )
    drawing = _warped(rng, drawing).rotate(rng.normal(0, 5), Image.Resampling.BILINEAR, expand=True)
    layer = Image.new("RGBA", size)
    left, top = (
        round(rng.random() * (outer - (1 - 2 * outside) * inner) - outside * inner)
        for inner, outer in zip(drawing.size, size, strict=True)
    )
    layer.paste(drawing, (left, top))
    return layer


def _warped(rng: np.random.Generator, drawing: Image.Image) -> Image.Image:
    """Bend a drawing as if printed on a sheet of rubber whose grid points are moved."""
    cells = 3
    width, height = drawing.size
    grid = np.stack(np.meshgrid(np.linspace(0, width, cells + 1), np.linspace(0, height, cells + 1)), axis=-1)
    source = grid + rng.uniform(-0.08, 0.08, grid.shape) * (width / cells, height / cells)
    mesh = []
    for row in range(cells):
        for column in range(cells):
            box = (
                *grid[row, column].round().astype(int).tolist(),
                *grid[row + 1, column + 1].round().astype(int).tolist(),
            )
            corners = (source[row + dy, column + dx] for dy, dx in ((0, 0), (1, 0), (1, 1), (0, 1)))
            mesh.append((box, tuple(float(part) for corner in corners for part in corner)))
    return drawing.transform(drawing.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def _drawing(rng: np.random.Generator, characters: str, font: Path) -> Image.Image:
    """Pick a drawing and recolour it, so that colour alone does not tell what it is: white is not always white."""
    drawing = _glyph(characters[int(rng.integers(len(characters)))], font)
    recoloured = shift_colours(
        drawing.convert("RGB"), rng.uniform(0, 360), rng.uniform(0.3, 1.5), rng.uniform(0.65, 1.2, 3)
    )
    recoloured.putalpha(drawing.getchannel("A"))
    return recoloured


def shift_colours(image: Image.Image, degrees: float, saturation: float, gains: np.ndarray) -> Image.Image:
    """Turn hues around the grey axis, scale the distance from it, then scale red, green and blue."""
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    cos, sin = (saturation * part for part in (math.cos(math.radians(degrees)), math.sin(math.radians(degrees))))
    matrix = np.linalg.inv(to_yiq) @ [[1, 0, 0], [0, cos, -sin], [0, sin, cos]] @ to_yiq * np.reshape(gains, (3, 1))
    return image.convert("RGB", tuple(np.pad(matrix, ((0, 0), (0, 1))).ravel().tolist()))


def _photographed(rng: np.random.Generator, scene: Image.Image) -> Image.Image:
    """Give the scene a colour cast, blur, uneven light, haze and sensor noise."""
    image = shift_colours(scene.convert("RGB"), rng.normal(0, 15), rng.uniform(0.4, 1.2), rng.uniform(0.8, 1.15, 3))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2)))
    pixels = np.asarray(image, dtype=np.float32)
    light = rng.uniform(0.35, 1.1) + rng.uniform(0, 0.35) * draw_clouds(rng, image.size, 0.4)
    haze = rng.uniform(-10, 110) + rng.uniform(0, 32) * rng.standard_normal(light.shape, dtype=np.float32)
    return Image.fromarray(to_bytes(pixels * light[..., None] + haze[..., None]))


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Round off to what an image holds, uint8."""
    return values.clip(0, 255).astype(np.uint8)


@cache
def _glyph(character: str, font: Path) -> Image.Image:
    """Draw a character in its own colours, RGBA, cut to its ink."""
    drawing = Image.new("RGBA", (2 * _GLYPH, 2 * _GLYPH))
    pen = ImageDraw.Draw(drawing)
    pen.text((_GLYPH, _GLYPH), character, font=ImageFont.truetype(font, _GLYPH), embedded_color=True, anchor="mm")
    return drawing.crop(drawing.getbbox())
