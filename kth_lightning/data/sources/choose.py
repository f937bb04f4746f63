"""From flags to the source of images that they mean."""

import re
from collections.abc import Mapping
from typing import Any

from kth_lightning.data.sources.folder import FolderSource
from kth_lightning.data.sources.kth import KthSource
from kth_lightning.data.sources.sample import SampleSource
from kth_lightning.data.sources.source import Source
from kth_lightning.data.sources.table import TableSource
from kth_lightning.errors import InputError
from kth_lightning.io.class_path import class_path, import_part

NAMES: dict[str, type[Source]] = {
    "sample": SampleSource,
    "kth": KthSource,
    "folder": FolderSource,
    "table": TableSource,
}
"""Sources that have a short name."""

_PLACES = {"archive": "kth", "root": "folder", "test_root": "folder", "class_level": "folder", "table": "table"}
"""Flags that say where a source's images are."""


def source_name(settings: Mapping[str, Any]) -> str:
    """Name the source that settings of the data mean: a key of `NAMES`, or the class path of another.

    Args:
        settings: `source` and the flags that name a place, as `ImageData` takes them or a configuration has them.
    """
    source = settings.get("source")
    if source is None:
        return next((name for place, name in _PLACES.items() if settings.get(place) and place != "test_root"), "sample")
    if isinstance(source, str) and source in NAMES:
        return source
    path = source if isinstance(source, str) else getattr(source, "class_path", None) or _class_path(source)
    known = {kind.__name__: name for name, kind in NAMES.items() if path.startswith("kth_lightning.")}
    return known.get(path.rpartition(".")[2], path)


def _class_path(source: object) -> str:
    return str(source["class_path"]) if isinstance(source, Mapping) else class_path(source)


def make_source(
    source: Source | str | None,
    archive: str | None,
    root: str | None,
    test_root: str | None,
    class_level: int | None,
    table: str | None,
    sample_size: int,
    sample_sites: int,
) -> Source:
    """Make a source of images.

    Args:
        source: One that is made already, or a key of `NAMES`; where it is None, what the other settings mean.
        archive: For "kth": path or URL of the archive; the published URL where it is None.
        root: For "folder": a folder of class folders.
        test_root: For "folder": another one, of test images.
        class_level: For "folder": at which depth the classes are; None to find out.
        table: For "table": a CSV or Parquet file.
        sample_size: For "sample": number of images to draw.
        sample_sites: For "sample": number of places at which they are drawn; 0 for none.

    Raises:
        InputError: There is no such source, a setting belongs to another one, or one is missing.
    """
    places = {"archive": archive, "root": root, "test_root": test_root, "class_level": class_level, "table": table}
    name = source_name({"source": source} | places)
    for flag, value in places.items():
        if value is not None and (name != _PLACES[flag] or isinstance(source, Source)):
            raise InputError(f"--data.{flag} goes with --data.source {_PLACES[flag]}, not with --data.source {name}")
    if isinstance(source, Source):
        return source
    if name == "kth":
        return KthSource(archive)
    if name == "sample":
        return SampleSource(sample_size, sites=sample_sites)
    if name == "table":
        if table is None:
            raise InputError("--data.source table needs --data.table FILE, a CSV or Parquet file of paths and labels")
        return TableSource(table)
    if name == "folder":
        if root is None:
            raise InputError(
                "--data.source folder needs --data.root DIR, a folder with one folder of images for each class"
            )
        return FolderSource(root, test_root, class_level)
    raise _no_source(name)


def _no_source(text: str) -> InputError:
    """Say why a text names no source: it is none of the names, and what it imports is no class of that kind."""
    path = match[1] if (match := re.search(r"""class_path["']?:\s*["']?([\w.]+)""", text)) else text
    if not re.fullmatch(r"\w+(\.\w+)+", path):
        return InputError(f"--data.source {text}: give one of {', '.join(NAMES)}, or a class such as mine.MySource")
    part = import_part(path, "--data.source")
    if isinstance(part, type) and issubclass(part, Source):
        return InputError(f"--data.source {path}: give its settings with --data.source.init_args, or in a config file")
    return InputError(
        f"--data.source {path} is not a source of images: it has no method list(cache_dir) that returns a "
        "kth_lightning.Listing"
    )
