"""What every source of images answers: where its files are and what they show."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kth_lightning.data.catalogue import Subset


@dataclass(frozen=True, slots=True)
class Candidate:
    """Name a file that should be an image.

    Attributes:
        file: Absolute path.
        label: Class name as people see it.
        mask: Absolute path of its segmentation mask, or None.
        subset: The part of the split that the source prescribes; empty where it prescribes none.
    """

    file: Path
    label: str
    mask: Path | None = None
    subset: Subset = ""


@dataclass(frozen=True)
class Listing:
    """List a source's files before any is opened.

    Attributes:
        root: Absolute path of the folder that holds them.
        candidates: Sorted by path.
        problems: (file, reason) of what the listing alone shows, for the audit: a file that is no image, a mask
            without an image.
        notes: Sentences for the summary, such as an attribution.
    """

    root: Path
    candidates: list[Candidate]
    problems: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Source(Protocol):
    """Fetch a data set once and list its files."""

    def list(self, cache_dir: Path) -> Listing:
        """Return the files, after fetching, unpacking or drawing them below `cache_dir` where that is still to do.

        Raises:
            InputError: The source cannot be used; the sentence names the flag and the way out.
        """
        ...
