"""The images of a checkpoint's run, where they lay in training or where flags say that they lie now."""

from inspect import signature
from pathlib import Path
from typing import Any

import yaml

from kth_lightning.cli.parser import Parser
from kth_lightning.data.module import ImageData
from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder

PLACES = {
    "source", "archive", "root", "test_root", "class_level", "table", "boxes", "min_box_confidence", "without_box",
    "sample_size", "sample_sites", "cache_dir", "splits", "corrections", "ignore_new", "value_range", "max_pixels",
}  # fmt: skip
"""Flags of the data that say where the images are and how they are read; all others follow from the run."""


def add_place_flags(parser: Parser) -> None:
    """Add the flags of `PLACES`."""
    parser.add_class_arguments(ImageData, "data", skip=set(signature(ImageData).parameters) - PLACES)


def places_of_run(checkpoint: Path, flag: str) -> dict[str, Any]:
    """Return where the images of a checkpoint's run lay and how they were split, as settings of a parser.

    Args:
        checkpoint: Inside its run folder.
        flag: What asks for the images.

    Raises:
        InputError: The folder has no such configuration.
    """
    run = RunFolder(checkpoint.absolute().parent.parent)
    try:
        settings = yaml.safe_load(run.config.read_text(encoding="utf-8"))["data"]
        flags = {f"data.{name}": settings[name] for name in PLACES & settings.keys()}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{flag}: {run.config} is missing or damaged; give the checkpoint inside its run folder"
        ) from None
    return flags | {"data.splits": str(run.splits)}
