"""Prepare a data set: read every image once, write the catalogue of the usable ones and the audit of the rest."""

import hashlib
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock

from kth_lightning.data.audit import (
    Finding,
    count_left_out,
    duplicate_findings,
    left_out_sentence,
    read_audit,
    write_audit,
)
from kth_lightning.data.catalogue import Catalogue, ImageRecord, read_catalogue, write_catalogue
from kth_lightning.data.class_names import check_names
from kth_lightning.data.corrections import Corrections, correct
from kth_lightning.data.file_remarks import file_remarks
from kth_lightning.data.heic import NO_READER, heic_reader
from kth_lightning.data.images import DEFAULT_OPTIONS, ReadOptions
from kth_lightning.data.reading import check_classes, read_images
from kth_lightning.data.sources.source import Listing, Source, checked_listing
from kth_lightning.data.summary import summarise_images, values_sentence
from kth_lightning.errors import InputError
from kth_lightning.io.output_folder import make_cache_folder

_FORMAT = "5"  # raise it when the same files would give other tables
_TABLES = ("catalogue.csv", "audit.csv", "summary.txt")
_SEAL = "tables.sha256"


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
            Otherwise the images decide no range of values, which the classifier would not know.

    Raises:
        InputError: The source or the corrections cannot be used, no image can, they cannot be trained on, or
            `cache_dir` cannot be written.
    """
    try:
        make_cache_folder(cache_dir)
        listing = checked_listing(source, cache_dir)
        check_names((candidate.label for candidate in listing.candidates), "the images")
        check_names((candidate.group for candidate in listing.candidates), "the images", "groups")
        folder = cache_dir.resolve() / "catalogues" / _key(listing, options)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _keep_tables(folder, partial(read_images, listing, options, for_training))
        catalogue = read_catalogue(folder / "catalogue.csv", listing.root, options)
        if for_training:  # an evaluation may have written the tables
            check_classes(listing, [image.label for image in catalogue.images], read_audit(folder / "audit.csv"))
        corrected = None if corrections is None else correct(catalogue, corrections)
        if corrected is not None:
            findings = [item for item in read_audit(folder / "audit.csv") if not item.of] + corrected.findings
            folder = folder.with_name(f"{folder.name}-{corrected.digest}")
            _keep_tables(folder, lambda: (corrected.images, findings))
            catalogue = replace(catalogue, images=corrected.images)
        catalogue = replace(catalogue, own_range=for_training, mask_background=listing.mask_background)
        summary = (folder / "summary.txt").read_text(encoding="utf-8")
        audit = read_audit(folder / "audit.csv")
        left_out = count_left_out(audit, [image.label for image in catalogue.images])
    except OSError as error:
        raise InputError(
            f"cannot use {error.filename or cache_dir} ({error.strerror or error}); free space on the disk, "
            "allow reading and writing there, or name another folder with --data.cache_dir"
        ) from None
    remarks = [*listing.remarks, *values_sentence(catalogue)]
    remarks += [corrected.sentence] if corrected else []
    found = list(file_remarks(catalogue.images, audit))
    lines = [*summary.splitlines(), *remarks, *(remark for remark in found if remark.startswith("warning: "))]
    remarks += found
    if lost := left_out_sentence(left_out):
        remarks.append(f"{lost}; see {folder / 'audit.csv'}")
        lines += [lost] if lost.startswith("warning: ") else []  # the rest of it stands in the summary
    lines += [*listing.notes, f"catalogue.csv and audit.csv are in {folder}"]
    return Prepared(catalogue, folder, "\n".join(lines), left_out, remarks, corrected)


def _keep_tables(folder: Path, make: Callable[[], tuple[Sequence[ImageRecord], list[Finding]]]) -> None:
    """Write the tables of a data set, from its images and findings, where they are missing, damaged or out of date."""
    with FileLock(f"{folder}.lock"):
        if folder.is_dir() and not _is_whole(folder):
            warnings.warn(f"the tables in {folder} are damaged and are written again", stacklevel=3)
            shutil.rmtree(folder)
        if folder.is_dir() and _can_read_more(folder):
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


def _can_read_more(folder: Path) -> bool:
    """Tell whether images were left out for want of a reader that has been installed since."""
    lacked = any(finding.reason == NO_READER for finding in read_audit(folder / "audit.csv"))
    return lacked and heic_reader() is not None


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
