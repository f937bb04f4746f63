"""What every command says of a data set's files, beside how many are left out."""

from collections import Counter
from collections.abc import Iterator, Sequence, Sized
from pathlib import PurePosixPath

from kth_lightning.data.audit import MASK_OF_OTHER_SIZE, MASK_UNREADABLE, NO_IMAGE, SEVERAL_PAGES, Finding
from kth_lightning.data.catalogue import ImageRecord
from kth_lightning.io.find_images import described


def file_remarks(images: Sequence[ImageRecord], findings: Sequence[Finding]) -> Iterator[str]:
    """Say which files are passed over, in part or in two classes, and which masks cannot be used.

    Args:
        images: The usable ones.
        findings: The rows of audit.csv.
    """
    others = {finding.path for finding in findings if finding.kind == NO_IMAGE}
    if others:
        yield f"{described(Counter(PurePosixPath(path).suffix.lower() for path in others))} passed over"
    for kind, lack in ((MASK_UNREADABLE, "read"), (MASK_OF_OTHER_SIZE, "used, being of another size than the image")):
        if masks := [finding for finding in findings if finding.kind == kind]:
            why = masks[0].reason.partition(": ")[2]
            yield f"warning: {_counted(masks, 'mask')} cannot be {lack}, such as {masks[0].path} ({why})"
    if stacks := [finding.path for finding in findings if finding.kind == SEVERAL_PAGES]:
        yield f"only the first page is used of {_counted(stacks, 'file')} with several pages, such as {stacks[0]}"
    yield from _in_several_classes(images)


def _in_several_classes(images: Sequence[ImageRecord]) -> Iterator[str]:
    """Name images of the same content and of different classes, which are trained with all their labels."""
    first: dict[str, ImageRecord] = {}
    torn: dict[str, ImageRecord] = {}
    for image in images:
        if first.setdefault(image.content, image).label != image.label:
            torn.setdefault(image.content, image)
    if torn:
        content, other = next(iter(torn.items()))
        yield (
            f"warning: {_counted(torn, 'image')} of the same content in different classes, such as "
            f"{first[content].name} and {other.name}; keep each in one class"
        )


def _counted(items: Sized, name: str) -> str:
    return f"{len(items)} {name}{'s' if len(items) > 1 else ''}"
