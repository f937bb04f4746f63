"""The page of `explore`: one HTML file that needs nothing beside it."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader
from PIL import Image

from kth_lightning.report.photos import Row, jpeg_uri

_CHART_SHARPNESS = 1.5  # pixels of a chart for one of the page


@dataclass(frozen=True)
class Page:
    """Hold what the page shows, in its order.

    Attributes:
        title: What the images are.
        lead: How many there are, and for what.
        warnings: Sentences about what could not be done.
        class_names: By falling training count.
        class_numbers: The classes that the charts show by number, as `class_numbers` gives them.
        counts: Images of each class in each part of the split; in the one part "all" where there is no split.
        only_classes: Which classes the images and densities show, where not all; else empty.
        originals: Examples at their original shape, a row a class.
        colours: PNG files of the densities: a wide one, and one for phones; None where they could not be drawn.
        colours_alt: What they show, in words.
        colours_note: Which images they are of.
        counts_chart: PNG file; None where it could not be drawn.
        seen: Images as a model sees them.
        image_size: Their side in pixels.
        resize: How they become squares.
        augmentation: Name of the preset.
        augmented: A row an image; empty where the preset changes nothing.
        left_out: Rows of audit.csv that are no duplicates.
        duplicates: A row a group of duplicates.
        duplicate_groups: How many groups there are in all.
        across_classes: How many of them have images of several classes.
        sizes_chart: Likewise.
        odd: Images of odd sizes, the oddest ones.
        odd_sizes: How many there are in all.
        small: How many are enlarged for the model.
        audit: The summary that `prepare` prints.
    """

    title: str
    lead: str
    warnings: Sequence[str]
    class_names: Sequence[str]
    class_numbers: Mapping[int, str]
    counts: Mapping[str, Counter[str]]
    only_classes: str
    originals: Sequence[Row]
    colours: tuple[Path, Path] | None
    colours_alt: str
    colours_note: str
    counts_chart: Path | None
    seen: Sequence[Row]
    image_size: int
    resize: str
    augmentation: str
    augmented: Sequence[Row]
    left_out: Sequence[Mapping[str, str]]
    duplicates: Sequence[Row]
    duplicate_groups: int
    across_classes: int
    sizes_chart: Path | None
    odd: Sequence[Row]
    odd_sizes: int
    small: int
    audit: str


def write_page(page: Page, file: Path) -> None:
    """Write the page as one self-contained HTML file: photographs as JPEG and charts as PNG inside it."""
    environment = Environment(
        loader=PackageLoader("kth_lightning.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["jpeg"] = jpeg_uri
    environment.filters["png"] = _png
    environment.filters["chart_size"] = _chart_size
    file.write_text(environment.get_template("explore.html").render(page=page), encoding="utf-8")


def _png(file: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def _chart_size(file: Path) -> tuple[int, int]:
    """Give a chart's width and height on the page, so that nothing jumps while it loads and no text grows too large."""
    with Image.open(file) as image:
        return round(image.width / _CHART_SHARPNESS), round(image.height / _CHART_SHARPNESS)
