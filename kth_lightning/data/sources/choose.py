"""From flags to the source of images that they mean."""

from pathlib import Path
from typing import Literal

from kth_lightning.data.sources.folder import FolderSource
from kth_lightning.data.sources.kth import KthSource
from kth_lightning.data.sources.sample import SampleSource
from kth_lightning.data.sources.source import Source
from kth_lightning.errors import InputError

SourceName = Literal["sample", "kth", "folder"]


def infer_source(source: SourceName | None, archive: str | None, root: str | None) -> SourceName:
    """Return the source that is meant where only the place of its images is given."""
    return source or ("kth" if archive else "folder" if root else "sample")


def make_source(
    name: SourceName, archive: str | None, root: str | None, test_root: str | None, sample_size: int
) -> Source:
    """Make a source of images.

    Args:
        name: Which.
        archive: For "kth": path or URL of the archive; the published URL where it is None.
        root: For "folder": a folder of class folders.
        test_root: For "folder": another one, of test images.
        sample_size: For "sample": number of images to draw.

    Raises:
        InputError: A setting belongs to another source, or one is missing.
    """
    for flag, value, owner in (
        ("archive", archive, "kth"),
        ("root", root, "folder"),
        ("test_root", test_root, "folder"),
    ):
        if value is not None and name != owner:
            raise InputError(f"--data.{flag} goes with --data.source {owner}, not with --data.source {name}")
    if name == "kth":
        return KthSource(archive)
    if name == "sample":
        return SampleSource(sample_size)
    if root is None:
        raise InputError(
            "--data.source folder needs --data.root DIR, a folder with one folder of images for each class"
        )
    return FolderSource(Path(root).expanduser(), Path(test_root).expanduser() if test_root else None)
