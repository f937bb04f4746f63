"""Read every image that a source lists: what there is to know of each, or why it cannot be used."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from kth_lightning.data.audit import (
    BROKEN_DATE,
    CAMERA_RAW,
    MASK_OF_OTHER_SIZE,
    MASK_UNREADABLE,
    NO_IMAGE,
    SEVERAL_PAGES,
    Finding,
)
from kth_lightning.data.box import Box
from kth_lightning.data.catalogue import ImageRecord
from kth_lightning.data.date_taken import parse_taken
from kth_lightning.data.deep_values import ValueRange
from kth_lightning.data.duplicates import Fingerprint, duplicate_groups, fingerprint
from kth_lightning.data.images import MIN_SIDE, ReadOptions, UnreadableImage, decode, open_image
from kth_lightning.data.sources.source import Candidate, Listing
from kth_lightning.data.tiff_faults import has_further_pages
from kth_lightning.errors import InputError
from kth_lightning.io.bounded_map import bounded_map
from kth_lightning.io.image_kinds import HEAD, image_kind, is_image_name, is_raw_name
from kth_lightning.io.image_name import image_content, image_name
from kth_lightning.io.progress import Progress

_AHEAD = 16  # images a core that are under way
_REMARKS = 300  # characters of them in a sentence


@dataclass(frozen=True, slots=True)
class _Reading:
    size: tuple[int, int]
    box: Box | None
    sha256: str
    fingerprint: Fingerprint
    values: ValueRange | None
    taken: str
    several_pages: bool


def read_images(listing: Listing, options: ReadOptions, for_training: bool) -> tuple[list[ImageRecord], list[Finding]]:
    """Read every image of a listing.

    Args:
        listing: The files.
        options: How large images may be, and which values are black and white.
        for_training: Refuse what no classifier can be trained on.

    Returns:
        The usable images, and what there is to say of the other files.

    Raises:
        InputError: No image is usable, or they cannot be trained on.
    """
    findings = [Finding(_relative(file, listing.root), "", reason) for file, reason in listing.problems]
    readings = list(zip(listing.candidates, _read_all(listing.candidates, options), strict=True))
    usable = [(candidate, reading) for candidate, reading in readings if isinstance(reading, _Reading)]
    developed = {candidate.file.with_suffix(""): candidate.file for candidate, _ in usable}
    for candidate, reason in readings:
        if isinstance(reason, _Reading):
            continue
        of = developed.get(candidate.file.with_suffix("")) if is_raw_name(candidate.file) else None
        reason = reason if of is None else f"{NO_IMAGE}: the raw data of {of.name}"
        is_other = reason.startswith(NO_IMAGE)
        name = _relative(candidate.file, listing.root) if is_other else _name(candidate, listing.root)
        findings.append(Finding(name, candidate.label, reason))
    if not usable:
        why = f" (the first: {findings[0].path}: {findings[0].reason})" if findings else ""
        raise InputError(f"{listing.root} has no usable image{why}; check the folder")
    if for_training:
        check_classes(listing, [candidate.label for candidate, _ in usable], findings)
    usable.sort(key=lambda item: (_relative(item[0].file, listing.root), item[0].box or ()))
    numbers = duplicate_groups(
        [image_content(reading.sha256, str(reading.box or "")) for _, reading in usable],
        [reading.fingerprint for _, reading in usable],
    )
    images = []
    for (candidate, reading), duplicates in zip(usable, numbers, strict=True):
        mask, reason = _matching_mask(candidate, reading, listing.root)
        if candidate.mask and reason:
            findings.append(Finding(_relative(candidate.mask, listing.root), candidate.label, reason))
        taken = parse_taken(reading.taken)
        if reading.taken and not taken:
            reason = f"{BROKEN_DATE}: {reading.taken[:40]!r}"
            findings.append(Finding(_name(candidate, listing.root), candidate.label, reason))
        if reading.several_pages:
            findings.append(
                Finding(_name(candidate, listing.root), candidate.label, f"{SEVERAL_PAGES}: the first is used")
            )
        width, height = reading.size if reading.box is None else reading.box.size(reading.size)
        images.append(
            ImageRecord(
                path=_relative(candidate.file, listing.root),
                label=candidate.label,
                mask=mask,
                width=width,
                height=height,
                sha256=reading.sha256,
                duplicates=duplicates,
                subset=candidate.subset,
                group=candidate.group,
                low=reading.values[0] if reading.values else None,
                high=reading.values[1] if reading.values else None,
                taken=taken,
                box=reading.box,
            )
        )
    return images, findings


def _read_all(candidates: Sequence[Candidate], options: ReadOptions) -> list[_Reading | str]:
    pool = ThreadPoolExecutor(os.cpu_count())
    # Each image's own range is enough for duplicates to be found, and that of all is not known yet.
    options = replace(options, own_range=True)
    try:
        readings = bounded_map(
            lambda candidate: pool.submit(_read, candidate, options), candidates, _AHEAD * (os.cpu_count() or 1)
        )
        return list(Progress(readings, "reading images", total=len(candidates)))
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for all the rest


def _read(candidate: Candidate, options: ReadOptions) -> _Reading | str:
    """Read one image, or return the reason why it cannot be used."""
    if not _is_unicode(candidate.file):
        return "unreadable: its path is not valid UTF-8, rename it"
    if is_raw_name(candidate.file):
        return f"{CAMERA_RAW}: a camera's raw data; develop it to JPEG or TIFF"
    try:
        with open_image(candidate.file) as stream:
            head = stream.read(HEAD)
            if not is_image_name(candidate.file) and image_kind(head) is None:
                return f"{NO_IMAGE}: neither its name nor its first bytes are those of one"
            if not head:
                return "unreadable: the file is empty"
            stream.seek(0)
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            image, size, values, taken = decode(stream, at_least=64, options=options, box=candidate.box)
            several_pages = image_kind(head) == "TIFF" and has_further_pages(stream)
    except UnreadableImage as error:
        return str(error)
    width, height = size if candidate.box is None else candidate.box.size(size)
    if min(width, height) < MIN_SIDE:
        return f"too small: {width}x{height} pixels, a side needs {MIN_SIDE}"
    return _Reading(size, candidate.box, sha256, fingerprint(image), values, taken, several_pages)


def _is_unicode(file: Path) -> bool:
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return False
    return True


def _relative(file: Path, root: Path) -> str:
    """Write a path as the tables have it, with escapes for bytes that are not UTF-8."""
    path = file.relative_to(root) if file.is_relative_to(root) else file
    return os.fsencode(path.as_posix()).decode(errors="backslashreplace")


def _name(candidate: Candidate, root: Path) -> str:
    return image_name(_relative(candidate.file, root), str(candidate.box or ""))


def _matching_mask(candidate: Candidate, reading: _Reading, root: Path) -> tuple[str, str]:
    """Return the mask's path, or "" and the reason why it cannot be used."""
    if candidate.mask is None:
        return "", ""
    try:
        with Image.open(candidate.mask) as mask:
            size = mask.size
    except Exception as error:  # as in `decode`
        return "", f"{MASK_UNREADABLE}: {getattr(error, 'strerror', None) or ' '.join(str(error).split())}"
    if size != reading.size:
        return "", f"{MASK_OF_OTHER_SIZE}: {size[0]}x{size[1]}, the image has {reading.size[0]}x{reading.size[1]}"
    return _relative(candidate.mask, root), ""


def check_classes(listing: Listing, usable: Sequence[str], findings: Sequence[Finding]) -> None:
    """Refuse images that no classifier can be trained on.

    Args:
        listing: The files.
        usable: The label of every image that can be used.
        findings: What there is to say of the other files.

    Raises:
        InputError: A class has no usable image, or there is one class only.
    """
    classes = {candidate.label for candidate in listing.candidates}
    for label in sorted(classes - set(usable)):
        bad = next(finding for finding in findings if finding.label == label)
        raise InputError(
            f"the class {label!r} has no usable image ({bad.path}: {bad.reason}); repair it or remove its folder "
            f"from {listing.root}"
        )
    if len(classes) == 1:
        read = f" ({'; '.join(listing.remarks)[:_REMARKS]})" if listing.remarks else ""
        raise InputError(
            f"{listing.root} has images of one class only ({usable[0]}); a classifier needs at least two{read}"
        )
