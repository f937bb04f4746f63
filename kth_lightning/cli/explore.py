"""The command `explore`."""

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jsonargparse import Namespace
from numpy.typing import NDArray

from kth_lightning.cli.parser import Parser
from kth_lightning.data.audit import RELABELLED, read_audit
from kth_lightning.data.module import ImageData
from kth_lightning.data.sources.choose import source_name
from kth_lightning.data.split import Split
from kth_lightning.drawing.attempt import attempt
from kth_lightning.drawing.names import class_numbers, picture_names, write_class_numbers
from kth_lightning.errors import InputError
from kth_lightning.io.output_folder import make_output_folder
from kth_lightning.io.terminal import printable
from kth_lightning.report.colours import colour_densities
from kth_lightning.report.explore_charts import draw_colours, draw_counts, draw_sheet, draw_sizes
from kth_lightning.report.explore_page import Page, write_page
from kth_lightning.report.photos import (
    Row,
    augmented_rows,
    duplicate_groups,
    duplicate_rows,
    odd_rows,
    odd_sizes,
    original_rows,
    seen_rows,
)

_ELSEWHERE = {"batch_size", "views", "balance", "balance_beta", "seed"}

_CLASSES = 60  # with images and densities of their own
_EXAMPLES = 80  # at their original shape, in all
_SEEN = 20
_AUGMENTED = 6
_COLOUR_IMAGES = 6000
_GROUPS = 24
_ODD = 12


def explore_command(argv: list[str]) -> None:
    """Draw a source's images, colours, counts and faults before training, as PNG files and as one HTML page.

    Args:
        argv: The command line behind `explore`.

    Raises:
        InputError: A setting, the images or the output folder cannot be used.
    """
    parser = Parser(
        prog="python -m kth_lightning explore",
        description="Write a page that shows the images before training: examples, colours, counts, augmentation, "
        "duplicates, and what looks wrong.",
    )
    parser.add_class_arguments(ImageData, "data", skip=set(_ELSEWHERE))
    parser.set_defaults({"data.augmentation": "standard"})
    parser.add_argument("--output", type=str | None, default=None, help="Output folder; explore/<source> by default.")
    options = parser.parse_args(argv)
    title, name = _names(options.data)
    output = Path(options.output or Path("explore", name)).expanduser()
    _check_output(output)
    data = parser.instantiate(options).data
    print(printable(data.prepared.summary))
    augmentation = options.data.augmentation
    drawn = augmentation if isinstance(augmentation, str) else augmentation.class_path
    page = _explore(data, title, drawn, output)
    file = output / "explore.html"
    write_page(page, file)
    print(printable(f"\n{page.lead}"))
    for warning in page.warnings:
        print(printable(f"warning: {warning}"))
    print(f"The page is {file} ({file.stat().st_size / 1e6:.1f} MB), its figures lie beside it as PNG files")


def _names(options: Namespace) -> tuple[str, str]:
    source = source_name(vars(options))
    if source == "folder" and options.root:
        name = Path(options.root).expanduser().resolve().name or source
        return name, name
    if source == "table" and options.table:
        name = Path(options.table).stem
        return name, name
    name = source.rpartition(".")[2]
    return {"kth": "KTH-ANIMALS", "sample": "The drawn sample"}.get(name, name), name


def _check_output(output: Path) -> None:
    """Find out before the long work whether its result can be written."""
    try:
        make_output_folder(output, "--output")
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise InputError(
            f"--output {output}: cannot be written ({error.strerror or error}); name another folder"
        ) from None


def _explore(data: ImageData, title: str, augmentation: str, output: Path) -> Page:
    images = data.catalogue.images
    split, warnings = _split(data)
    counts = split.counts(data.catalogue) if split else {"all": Counter(image.label for image in images)}
    counts = {part: counts[part] for part in ("train", "val", "test", "unused", "all") if part in counts}
    first = next(iter(counts.values()))
    class_names = sorted(data.class_names, key=lambda label: (-first[label], label))

    labels = np.array([image.label for image in images])
    shown = _spread(data.class_names, _CLASSES)
    rng = np.random.default_rng(0)
    training = np.array([part == "train" for part in split.parts]) if split else np.ones(len(images), dtype=bool)
    examples = [
        _some(np.flatnonzero((labels == label) & training), min(max(_EXAMPLES // len(shown), 1), 8), rng)
        for label in shown
    ]
    clear = [position for positions in examples for position in positions[: max(_SEEN // len(shown), 1)]]
    members = [_some(np.flatnonzero(labels == label), _COLOUR_IMAGES // len(shown), rng) for label in shown]

    densities = colour_densities(data.catalogue, members)
    names = dict(zip(data.class_names, picture_names(data.class_names), strict=True))
    write_class_numbers(data.class_names, output)
    titles = [names[label] for label in shown]
    wide = _drawn(output / "colours.png", lambda to: draw_colours(densities, titles, 5, to))
    tall = _drawn(output / "colours-narrow.png", lambda to: draw_colours(densities, titles, 2, to))
    bars = _drawn(
        output / "counts.png", lambda to: draw_counts(counts, {label: names[label] for label in class_names}, to)
    )
    odd = odd_sizes(images)
    sizes = _drawn(output / "sizes.png", lambda to: draw_sizes(images, odd, data.image_size, to))
    groups, across = duplicate_groups(data.catalogue)
    sheets: dict[str, list[Row]] = {
        "originals": original_rows(data.catalogue, examples),
        "seen": seen_rows(data, clear),
        "augmented": augmented_rows(data, _spread(clear, _AUGMENTED)),
        "duplicates": duplicate_rows(data.catalogue, groups[:_GROUPS]),
        "odd": odd_rows(data.catalogue, odd[:_ODD]),
    }
    for name, rows in sheets.items():
        _drawn(output / f"{name}.png", partial(_sheet, rows, names))

    return Page(
        title=title,
        lead=f"{data.describe() if split else f'{len(images)} images in {data.num_classes} classes'}.",
        warnings=warnings,
        class_names=class_names,
        class_numbers=class_numbers(data.class_names),
        counts=counts,
        only_classes=f"{len(shown)} of {data.num_classes} classes are shown." if len(shown) < data.num_classes else "",
        originals=sheets["originals"],
        colours=(wide, tall) if wide and tall else None,
        colours_alt=_colours_in_words(densities, shown),
        colours_note=_colours_note(members, labels, shown),
        counts_chart=bars,
        seen=sheets["seen"],
        image_size=data.image_size,
        resize=data.resize,
        augmentation=augmentation,
        augmented=sheets["augmented"],
        left_out=_left_out(data.prepared.folder / "audit.csv"),
        duplicates=sheets["duplicates"],
        duplicate_groups=len(groups),
        across_classes=across,
        sizes_chart=sizes,
        odd=sheets["odd"],
        odd_sizes=len(odd),
        small=sum(data.square.enlarges(image.width, image.height) for image in images),
        audit=data.prepared.summary,
    )


def _sheet(rows: Sequence[Row], names: Mapping[str, str], file: Path) -> None:
    if rows:
        draw_sheet(rows, names, file)


def _drawn(file: Path, draw: Callable[[Path], None]) -> Path | None:
    """Draw a picture into a file; a warning, and None, where it cannot be drawn."""
    with attempt(f"{file.name} is not drawn"):
        file.unlink(missing_ok=True)  # of an earlier command
        draw(file)
    return file if file.is_file() else None


def _split(data: ImageData) -> tuple[Split | None, list[str]]:
    """Split the images; what is too little to train on can be looked at all the same."""
    try:
        return data.split, []
    except InputError as error:
        if data.splits is not None:
            raise
        return None, [f"These images cannot be split for training: {error}"]


def _spread(items: Sequence, number: int) -> list:
    """Pick that many items, evenly over their order; all where there are no more."""
    positions = np.linspace(0, len(items) - 1, min(number, len(items)))
    return [items[round(position)] for position in positions]


def _some(positions: NDArray[np.intp], number: int, rng: np.random.Generator) -> list[int]:
    return sorted(rng.permutation(positions)[:number].tolist())


def _colours_note(members: Sequence[Sequence[int]], labels: NDArray[np.str_], shown: Sequence[str]) -> str:
    read, there = sum(map(len, members)), int(np.isin(labels, shown).sum())
    which = "All images of these classes" if read == there else f"{read} of {there} images, drawn at random"
    return (
        f"{which}, each weighing the same whatever its size; smoothed by a Gaussian of 4 levels. All panels share "
        "one scale; a peak beyond its panel is a uniform background."
    )


def _colours_in_words(densities: NDArray[np.float64], shown: Sequence[str]) -> str:
    brightness = (densities @ np.arange(256)).mean(axis=1)
    dark, bright = brightness.argmin(), brightness.argmax()
    return (
        f"Densities of red, green and blue for {len(shown)} classes. On the average over pixels and channels, "
        f"{shown[dark]} is the darkest with level {brightness[dark]:.0f} of 255 and {shown[bright]} the brightest with "
        f"{brightness[bright]:.0f}"
    )


def _left_out(audit: Path) -> list[dict[str, str]]:
    return [row._asdict() for row in read_audit(audit) if not row.of and row.kind != RELABELLED]
