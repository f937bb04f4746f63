"""What every source of images answers: where its files are and what they show."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from kth_lightning.data.box import Box
from kth_lightning.data.catalogue import MaskBackground, Subset
from kth_lightning.errors import InputError
from kth_lightning.io.class_path import class_path
from kth_lightning.io.image_name import image_name

_WORDS: dict[Subset, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev", "devel", "development"),
    "test": ("test", "testing", "tst", "holdout", "heldout"),
}
SUBSETS = {word: subset for subset, words in _WORDS.items() for word in words}
"""What people call the parts of a split, in lower case."""

TWICE = "listed twice"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that should be an image, or a box of one.

    Attributes:
        file: Absolute path.
        label: Class name as people see it.
        mask: Absolute path of its segmentation mask, or None.
        subset: The part of the split that the source prescribes; empty where it prescribes none.
        group: Name of what it belongs to (a patient, a place, a video); images of one group are never parted by a
            split or a fold. Empty where it belongs to none.
        box: The part of the image that is meant, an example of its own beside others of the file; None for the whole.
    """

    file: Path
    label: str
    mask: Path | None = None
    subset: Subset = ""
    group: str = ""
    box: Box | None = None


@dataclass(frozen=True)
class Listing:
    """A source's files, before any is opened.

    Attributes:
        root: Absolute path of the folder that holds them.
        candidates: In any order; a file that is missing or no image stands in the audit later.
        problems: (file, reason) of what the listing alone shows, for the audit: a file that is no image, a mask
            without an image.
        notes: Sentences for the summary, such as an attribution.
        remarks: Sentences that every command says: how the files were understood, and what was passed over.
        mask_background: What the masks have where there is no object.
    """

    root: Path
    candidates: list[Candidate]
    problems: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    mask_background: MaskBackground = "zero"


class Source(ABC):
    """A data set: what to fetch once, and which files it then has.

    Any class with this method is a source, and need not be a subclass.
    """

    @abstractmethod
    def list(self, cache_dir: Path) -> Listing:
        """Return the files, after fetching, unpacking or drawing them below `cache_dir` where that is still to do.

        It is asked by every command and has to be quick where nothing is left to do. The same data give the same
        listing.

        Raises:
            InputError: The source cannot be used; the sentence names the flag and the way out.
        """

    @classmethod
    def __subclasshook__(cls, other: type) -> Any:
        # So that --data.source takes a class that was written without a look at this one.
        return callable(getattr(other, "list", None)) if cls is Source else NotImplemented


def checked_listing(source: Source, cache_dir: Path) -> Listing:
    """List a source's files, sorted, each once.

    Raises:
        InputError: The listing is empty, of the wrong kind, or contradicts itself.
    """
    name = f"the source {class_path(source)}"
    listing = source.list(cache_dir)
    if not isinstance(listing, Listing):
        raise InputError(f"{name} lists {type(listing).__name__}; let its method list return a kth_lightning.Listing")
    if not listing.candidates:
        why = f" ({listing.problems[0][0]}: {listing.problems[0][1]})" if listing.problems else ""
        raise InputError(f"{name} lists no image{why}; check what it is given")
    root = Path(listing.root).absolute()
    once: dict[tuple[Path, Box | None], Candidate] = {}
    twice: list[tuple[Path, str]] = []
    for candidate in listing.candidates:
        if fault := next(_faults(candidate), None):
            raise InputError(f"{name} lists {candidate!r}, whose {fault}"[:600])
        if (same := once.setdefault((candidate.file, candidate.box), candidate)) is candidate:
            continue
        if same != candidate:
            shown = image_name(str(candidate.file), str(candidate.box or ""))
            raise InputError(f"{name} lists {shown} twice, {_difference(same, candidate)}; leave one out")
        twice.append((candidate.file, TWICE))
    candidates = sorted(once.values(), key=lambda candidate: (candidate.file.as_posix(), candidate.box or ()))
    return replace(listing, root=root, candidates=candidates, problems=[*listing.problems, *twice])


def _faults(candidate: Candidate) -> Iterator[str]:
    for name in ("file", "mask"):
        path = getattr(candidate, name)
        if not isinstance(path, Path) and (path is not None or name == "file"):
            yield f"{name} is not a pathlib.Path"
        elif path is not None and (not path.is_absolute() or "\0" in str(path)):
            yield f"{name} is not an absolute path"
    for name in ("label", "group"):
        if not isinstance(getattr(candidate, name), str):
            yield f"{name} is not text"
    if candidate.box is not None and not isinstance(candidate.box, Box):
        yield "box is not a kth_lightning.Box"
    if not candidate.label:
        yield "label is empty"
    if candidate.subset not in get_args(Subset):
        yield f"subset is none of {', '.join(map(repr, get_args(Subset)))}"


def _difference(first: Candidate, second: Candidate) -> str:
    name = next(item for item in Candidate.__slots__ if getattr(first, item) != getattr(second, item))
    return f"with the {name} {getattr(first, name)!s} and {getattr(second, name)!s}"
