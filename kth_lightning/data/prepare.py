"""Prepare a data set: read every image once, write the catalogue of the usable ones and the audit of the rest."""

import hashlib
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock
from PIL import Image

from kth_lightning.data.audit import (
    BROKEN_DATE,
    NO_IMAGE,
    Finding,
    count_left_out,
    duplicate_findings,
    left_out_sentence,
    read_audit,
    write_audit,
)
from kth_lightning.data.box import Box
from kth_lightning.data.catalogue import Catalogue, ImageRecord, read_catalogue, write_catalogue
from kth_lightning.data.class_names import check_names
from kth_lightning.data.corrections import Corrections, correct
from kth_lightning.data.date_taken import parse_taken
from kth_lightning.data.deep_values import ValueRange
from kth_lightning.data.duplicates import Fingerprint, duplicate_groups, fingerprint
from kth_lightning.data.images import DEFAULT_OPTIONS, MIN_SIDE, ReadOptions, UnreadableImage, decode, open_image
from kth_lightning.data.sources.source import Candidate, Listing, Source, checked_listing
from kth_lightning.data.summary import summarise_images, values_sentence
from kth_lightning.errors import InputError
from kth_lightning.io.bounded_map import bounded_map
from kth_lightning.io.image_kinds import HEAD, image_kind, is_image_name, is_raw_name
from kth_lightning.io.image_name import image_content, image_name
from kth_lightning.io.output_folder import make_cache_folder
from kth_lightning.io.progress import Progress

_FORMAT = "4"  # raise it when the same files would give other tables
_TABLES = ("catalogue.csv", "audit.csv", "summary.txt")
_SEAL = "tables.sha256"
_AHEAD = 16  # images a core that are under way


@dataclass(frozen=True)
class Prepared:
    """A prepared data set.

    Attributes:
        catalogue: The usable images.
        folder: Where `catalogue.csv` and `audit.csv` lie.
        summary: Lines for people: what is usable, what is not and why, duplicates, class counts.
        left_out: How many images are not, as `count_left_out` returns it.
        remarks: Sentences that every command says: how the files were understood, what was passed over, left out or
            corrected.
        corrections: What was decided about labels, where a table of corrections was given.
    """

    catalogue: Catalogue
    folder: Path
    summary: str
    left_out: dict[str, Any]
    remarks: list[str]
    corrections: Corrections | None = None


@dataclass(frozen=True, slots=True)
class _Reading:
    size: tuple[int, int]
    box: Box | None
    sha256: str
    fingerprint: Fingerprint
    values: ValueRange | None
    taken: str


def prepare(
    source: Source,
    cache_dir: Path,
    options: ReadOptions = DEFAULT_OPTIONS,
    corrections: Path | None = None,
    for_training: bool = True,
) -> Prepared:
    """Fetch a data set, read every image once, and keep the tables for as long as its files do not change.

    `catalogue.csv` has the usable images; `audit.csv` has every file that is left out and every duplicate, with the
    reason. A bad image never stops it, and damaged tables are made again. Duplicates stay in the catalogue, tied
    together by their group.

    Args:
        source: Of the images.
        cache_dir: The tables lie below it.
        options: How large images may be, and the range of values of those deeper than 8 bits; where it is None, it is
            from the lowest of all images to the highest.
        corrections: A table of what was decided about labels, which the tables then show.
        for_training: Refuse what no classifier can be trained on: a class without a usable image, or a single class.

    Raises:
        InputError: The source or the corrections cannot be used, no image can, they cannot be trained on, or
            `cache_dir` cannot be written.
    """
    try:
        make_cache_folder(cache_dir)
        listing = checked_listing(source, cache_dir)
        check_names((candidate.label for candidate in listing.candidates), "the images")
        folder = cache_dir.resolve() / "catalogues" / _key(listing, options)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _keep_tables(folder, partial(_read_images, listing, options, for_training))
        catalogue = read_catalogue(folder / "catalogue.csv", listing.root, options)
        if for_training:  # an evaluation may have written the tables
            _check_classes(listing, [image.label for image in catalogue.images], read_audit(folder / "audit.csv"))
        corrected = None if corrections is None else correct(catalogue, corrections)
        if corrected is not None:
            findings = [item for item in read_audit(folder / "audit.csv") if not item.of] + corrected.findings
            folder = folder.with_name(f"{folder.name}-{corrected.digest}")
            _keep_tables(folder, lambda: (corrected.images, findings))
            catalogue = replace(catalogue, images=corrected.images)
        summary = (folder / "summary.txt").read_text(encoding="utf-8")
        left_out = count_left_out(read_audit(folder / "audit.csv"), [image.label for image in catalogue.images])
    except OSError as error:
        raise InputError(
            f"cannot use {error.filename or cache_dir} ({error.strerror or error}); free space on the disk, "
            "allow reading and writing there, or name another folder with --data.cache_dir"
        ) from None
    remarks = [*listing.remarks, *values_sentence(catalogue)]
    remarks += [corrected.sentence] if corrected else []
    lines = [*summary.splitlines(), *remarks]
    if lost := left_out_sentence(left_out):
        remarks.append(f"{lost}; see {folder / 'audit.csv'}")
        lines += [lost] if lost.startswith("warning: ") else []  # the rest of it stands in the summary
    lines += [*listing.notes, f"tables: {folder}"]
    return Prepared(catalogue, folder, "\n".join(lines), left_out, remarks, corrected)


def _keep_tables(folder: Path, make: Callable[[], tuple[Sequence[ImageRecord], list[Finding]]]) -> None:
    """Write the tables of a data set, from its images and findings, where they are not there yet or damaged."""
    with FileLock(f"{folder}.lock"):
        if folder.is_dir() and not _is_whole(folder):
            warnings.warn(f"the tables in {folder} are damaged and are written again", stacklevel=3)
            shutil.rmtree(folder)
        if not folder.is_dir():
            images, findings = make()
            with TemporaryDirectory(dir=folder.parent) as temporary:
                new = Path(temporary) / "new"
                new.mkdir()
                write_catalogue(images, new / "catalogue.csv")
                write_audit([*findings, *duplicate_findings(images)], new / "audit.csv")
                (new / "summary.txt").write_text(summarise_images(images, findings), encoding="utf-8")
                (new / _SEAL).write_text(_digest(new), encoding="ascii")
                new.rename(folder)


def _is_whole(folder: Path) -> bool:
    try:
        return (folder / _SEAL).read_bytes() == _digest(folder).encode("ascii")
    except FileNotFoundError:
        return False


def _digest(folder: Path) -> str:
    return hashlib.sha256(b"\0".join((folder / name).read_bytes() for name in _TABLES)).hexdigest()


def _key(listing: Listing, options: ReadOptions) -> str:
    digest = hashlib.sha256(f"{_FORMAT} {options.max_pixels}".encode() + os.fsencode(listing.root))
    for one in listing.candidates:
        files = f"{_state(one.file)}\0{_state(one.mask) if one.mask else ''}"
        box = "" if one.box is None else f"\0{one.box}"
        digest.update(os.fsencode(f"\0{files}\0{one.label}\0{one.subset}\0{one.group}{box}"))
    for file, reason in listing.problems:
        digest.update(os.fsencode(f"\0{file}\0{reason}"))
    return digest.hexdigest()[:16]


def _state(file: Path) -> str:
    try:
        stat = file.stat()
    except OSError:
        return f"{file}\0missing"
    return f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_mode}"


def _read_images(listing: Listing, options: ReadOptions, for_training: bool) -> tuple[list[ImageRecord], list[Finding]]:
    """Read every image; return the usable ones and what there is to say of the other files."""
    findings = [Finding(_relative(file, listing.root), "", reason) for file, reason in listing.problems]
    usable: list[tuple[Candidate, _Reading]] = []
    for candidate, reading in zip(listing.candidates, _read_all(listing.candidates, options), strict=True):
        if isinstance(reading, _Reading):
            usable.append((candidate, reading))
        else:
            findings.append(Finding(_name(candidate, listing.root), candidate.label, reading))
    if not usable:
        why = f" (the first: {findings[0].path}: {findings[0].reason})" if findings else ""
        raise InputError(f"{listing.root} has no usable image{why}; check the folder")
    if for_training:
        _check_classes(listing, [candidate.label for candidate, _ in usable], findings)
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
        return f"{NO_IMAGE}: a camera's raw data; develop it to JPEG or TIFF"
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
    except UnreadableImage as error:
        return str(error)
    width, height = size if candidate.box is None else candidate.box.size(size)
    if min(width, height) < MIN_SIDE:
        return f"too small: {width}x{height} pixels, a side needs {MIN_SIDE}"
    return _Reading(size, candidate.box, sha256, fingerprint(image), values, taken)


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
        return "", f"unreadable mask: {' '.join(str(error).split())}"
    if size != reading.size:
        return "", f"mask of another size: {size[0]}x{size[1]}, the image has {reading.size[0]}x{reading.size[1]}"
    return _relative(candidate.mask, root), ""


def _check_classes(listing: Listing, usable: Sequence[str], findings: Sequence[Finding]) -> None:
    classes = {candidate.label for candidate in listing.candidates}
    for label in sorted(classes - set(usable)):
        bad = next(finding for finding in findings if finding.label == label)
        raise InputError(
            f"the class {label!r} has no usable image ({bad.path}: {bad.reason}); repair it or remove its folder "
            f"from {listing.root}"
        )
    if len(classes) == 1:
        raise InputError(f"{listing.root} has images of one class only ({usable[0]}); a classifier needs at least two")
