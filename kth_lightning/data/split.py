"""Stratified splits that keep duplicates, and images of one group, together."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

import numpy as np

from kth_lightning.data.catalogue import Catalogue, ImageRecord
from kth_lightning.errors import InputError

Part = Literal["train", "val", "test", "unused"]
"""What an image is for; "unused" images stand in a prescribed test or validation part as well."""

Size = int | float
"""A number of images, or a share of them where it lies between 0 and 1."""

_PURPOSES: dict[Part, str] = {"train": "training", "val": "validation", "test": "testing"}


@dataclass(frozen=True)
class Split:
    """Say what each image of a catalogue is for.

    Attributes:
        parts: One entry an image, in the catalogue's order.
    """

    parts: tuple[Part, ...]

    def indices(self, part: Part) -> np.ndarray:
        """Return the indices in the catalogue of a part's images, int64 [N], rising."""
        return np.flatnonzero(np.array(self.parts) == part)

    def counts(self, catalogue: Catalogue) -> dict[str, Counter[str]]:
        """Count the images of each class in each part."""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for part, image in zip(self.parts, catalogue.images, strict=True):
            counts[part][image.label] += 1
        return counts


def make_split(
    catalogue: Catalogue, val_size: Size, test_size: Size, seed: int, num_folds: int | None = None, fold: int = 0
) -> Split:
    """Split a catalogue into training, validation and test images.

    Each class is shared out in proportion, with at least one image in every part; duplicates, and images of one group,
    stay in one part. Parts that the source prescribes are kept, even where they lack a class; what of the other parts
    duplicates their images is left out.

    Args:
        catalogue: The images.
        val_size: Number or share of the images for validation.
        test_size: Likewise for testing, beside images of `--data.test_root`; not used with folds or where the source
            prescribes every image's part.
        seed: Of the drawing of lots.
        num_folds: Number of parts of equal size that take turns as test images.
        fold: Which of them it is, from 0.

    Raises:
        InputError: The sizes do not fit the data, or the source prescribes several parts for one group.
    """
    _check_groups(catalogue)
    prescribed: set[str] = {image.subset for image in catalogue.images}
    parts: list[Part | None] = [image.subset or None for image in catalogue.images]
    total = sum(part in (None, "train") for part in parts)
    classes = len(catalogue.class_names)
    rng = np.random.default_rng(seed)
    if num_folds is not None:
        if "test" in prescribed:
            raise InputError(
                "--data.num_folds: the test images are prescribed by the source; give folds or prescribed test images, "
                "not both"
            )
        if not 0 <= fold < num_folds or num_folds < 2:
            raise InputError(
                f"--data.fold {fold} of --data.num_folds {num_folds}: there are at least 2 folds, numbered from 0"
            )
        free = list(range(len(parts)))
        folds = _share_out(catalogue, free, _fold_quotas(catalogue, num_folds), rng)
        parts = ["test" if item == fold else None for item in folds]
        prescribed = {"test"}
    elif None in parts or "test" not in prescribed:
        number = _number(test_size, total, classes, "--data.test_size")
        later: list[Part] = ["train"] if "val" in prescribed else ["train", "val"]
        _fill(parts, "test", catalogue, number, rng, "--data.test_size", later)
    if "val" not in prescribed:
        number = _number(val_size, total, classes, "--data.val_size")
        _fill(parts, "val", catalogue, number, rng, "--data.val_size", ["train"])
    split = Split(_without_leaks(catalogue, [part or "train" for part in parts]))
    grouped = any(image.group for image in catalogue.images)
    check_parts(catalogue, split, {"val"} if grouped else {"val"} & prescribed)
    return split


def _fill(
    parts: list[Part | None],
    part: Part,
    catalogue: Catalogue,
    number: int,
    rng: np.random.Generator,
    flag: str,
    later: Sequence[Part],
) -> None:
    """Draw the images of one part among those that have none, or are prescribed for training only.

    Every class keeps an image for each part that is filled later.
    """
    free = [position for position, item in enumerate(parts) if item in (None, "train")]
    counts = Counter(catalogue.images[position].label for position in free)
    if number < len(counts):
        raise InputError(f"{flag} {number}: there are {len(counts)} classes and each needs an image; give more")
    quota = _quota(counts, number, flag, [*later, part])
    rest = {label: counts[label] - quota[label] for label in counts}
    chosen = _share_out(catalogue, free, [rest, quota], rng)
    for position, bin_ in zip(free, chosen, strict=True):
        if bin_ == 1:
            parts[position] = part


def _number(size: Size, total: int, classes: int, flag: str) -> int:
    if 0 < size < 1:
        return max(round(size * total), classes)
    if size % 1:
        raise InputError(f"{flag} {size}: give a share between 0 and 1, or a whole number of images")
    return int(size)


def _quota(counts: Counter[str], wanted: int, flag: str, parts: Sequence[Part]) -> dict[str, int]:
    """Share a number of images out to the classes in proportion, by largest remainders, at least one each.

    Each class keeps an image for every part but the last of `parts`, which is the one to fill.
    """
    total, kept = sum(counts.values()), len(parts) - 1
    small = sorted((count, label) for label, count in counts.items() if count <= kept)
    if small:
        count, label = small[0]
        others = f"; {len(small) - 1} other classes also have too few" if len(small) > 1 else ""
        raise InputError(
            f"class {label!r} has {_images(count)} to draw from and needs {len(parts)}, one each for "
            f"{_listed([_PURPOSES[part] for part in parts])}{others}; add images, or leave the class out"
        )
    if wanted > total - kept * len(counts):
        raise InputError(
            f"{flag} {wanted}: of {total} images to draw from, each of {len(counts)} classes keeps {kept} for "
            f"{_listed([_PURPOSES[part] for part in parts[:-1]])}; give {total - kept * len(counts)} at most"
        )
    exact = {label: wanted * count / total for label, count in counts.items()}
    quota = {label: min(max(1, int(share)), counts[label] - kept) for label, share in exact.items()}
    while (missing := wanted - sum(quota.values())) != 0:
        step = 1 if missing > 0 else -1
        able = [item for item in sorted(counts) if (quota[item] + kept < counts[item] if step > 0 else quota[item] > 1)]
        quota[max(able, key=lambda label: step * (exact[label] - quota[label]))] += step
    return quota


def _fold_quotas(catalogue: Catalogue, num_folds: int) -> list[dict[str, int]]:
    """Share every class out to the folds evenly; what is left over goes round, so that folds stay of one size."""
    quotas: list[dict[str, int]] = [{} for _ in range(num_folds)]
    turn = 0
    for label, count in sorted(Counter(image.label for image in catalogue.images).items()):
        if count < num_folds:
            raise InputError(
                f"--data.num_folds {num_folds}: class {label!r} has {_images(count)}, fewer than folds; add some, or "
                f"give {count} folds at most"
            )
        for position in range(num_folds):
            quotas[position][label] = count // num_folds
        for _ in range(count % num_folds):
            quotas[turn % num_folds][label] += 1
            turn += 1
    return quotas


def _share_out(
    catalogue: Catalogue, free: Sequence[int], quotas: list[dict[str, int]], rng: np.random.Generator
) -> list[int]:
    """Give each free image a bin, those of one group the same; bins end as near their quotas as groups allow.

    The last group of a class goes where the class has nothing yet.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for position in free:
        groups[int(catalogue.inseparable[position])].append(position)
    members = list(groups.values())
    order = sorted((members[item] for item in rng.permutation(len(members))), key=len, reverse=True)
    left = [dict(quota) for quota in quotas]
    chosen: dict[int, int] = {}
    waiting = Counter(label for group in order for label in {catalogue.images[position].label for position in group})
    for group in order:
        needs = Counter(catalogue.images[position].label for position in group)
        waiting.subtract(needs.keys())
        room = np.array([sum(bin_.get(label, 0) for label in needs) for bin_ in left], dtype=float)
        fits = np.array([all(bin_.get(label, 0) >= need for label, need in needs.items()) for bin_ in left])
        weights = np.where(fits, np.maximum(room, 0), 0.0)
        if weights.sum():
            bin_ = int(rng.choice(len(left), p=weights / weights.sum()))
        else:
            last = [label for label in needs if not waiting[label]]
            lacks = [
                any(0 < quota.get(label, 0) == rest[label] for label in last)
                for quota, rest in zip(quotas, left, strict=True)
            ]
            bin_ = max(range(len(left)), key=lambda item: (lacks[item], room[item]))
        for label, need in needs.items():
            left[bin_][label] = left[bin_].get(label, 0) - need
        for position in group:
            chosen[position] = bin_
    return [chosen[position] for position in free]


def _without_leaks(catalogue: Catalogue, parts: list[Part]) -> tuple[Part, ...]:
    """Leave out of training what is also validated or tested on, and of validation what is also tested on."""
    rank = {"unused": -1, "train": 0, "val": 1, "test": 2}
    groups = catalogue.inseparable.tolist()
    highest: dict[int, int] = defaultdict(lambda: -1)
    for group, part in zip(groups, parts, strict=True):
        highest[group] = max(highest[group], rank[part])
    return tuple(part if rank[part] == highest[group] else "unused" for group, part in zip(groups, parts, strict=True))


def _check_groups(catalogue: Catalogue) -> None:
    parts: dict[str, ImageRecord] = {}
    for image in catalogue.images:
        if image.group and (first := parts.setdefault(image.group, image)).subset != image.subset:
            raise InputError(
                f"the group {image.group!r} has several splits: {first.path} has {first.subset or 'none'}, "
                f"{image.path} has {image.subset or 'none'}; give all its images the same split, or no group"
            )


def check_parts(catalogue: Catalogue, split: Split, may_lack: Collection[str], file: str = "") -> None:
    """Refuse a split without images of some class to train on, or without any image in a part.

    Args:
        catalogue: The images.
        split: What each is for.
        may_lack: The parts, beside that for testing, that need not have every class.
        file: Flag and name of the file that the split was read from.
    """
    counts = split.counts(catalogue)
    for part, purpose in _PURPOSES.items():
        lacking = [name for name in catalogue.class_names if not counts[part][name]]
        if not counts[part]:
            what, label = f"no image is left for {purpose}", None
        elif lacking and part != "test" and part not in may_lack:
            what, label = f"class {lacking[0]!r} has no image left for {purpose}", lacking[0]
        else:
            continue
        if file:
            raise InputError(f"{file}: {what}; give a run's splits.csv, or leave the flag out for a new split")
        raise InputError(f"{what}: {_reason(catalogue, label, part)}")


def _reason(catalogue: Catalogue, label: str | None, part: Part) -> str:
    """Say why no image of a class, or none at all, is in a part, and what to do."""
    positions = [position for position, image in enumerate(catalogue.images) if label in (None, image.label)]
    images = [catalogue.images[position] for position in positions]
    inside = [image for image in images if image.subset == part]
    if inside:
        folders = sorted({str(PurePosixPath(image.path).parent) for image in inside})
        place = f"{_listed(folders[:3])}{' and others' if len(folders) > 3 else ''}"
        return f"{place} has {_images(len(inside))}, all of them duplicates of images of other parts; add others there"
    if any(image.subset for image in images):
        return f"none of those that are prescribed for {_PURPOSES[part]} can be read; add some there"
    groups = len(set(catalogue.inseparable[positions].tolist()))
    kind = "" if any(image.group for image in images) else " of duplicates"
    return (
        f"{_images(len(images))} make {groups} group{'s' if groups > 1 else ''}{kind}, and each group stays in one "
        "part; add other images, or leave the class out"
    )


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
