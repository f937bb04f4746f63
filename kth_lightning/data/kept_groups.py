"""Which images belong together, and which have masks, as a run keeps it to know it again."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kth_lightning.data.catalogue import ImageRecord


def describe_groups(images: Sequence[ImageRecord]) -> dict[str, Any]:
    """Describe the groups of images, whatever these groups are called and wherever the images lie.

    Returns:
        "groups", how many there are; "images", how many images have one; "sha256", of which images these are, together
        with which others.
    """
    first: dict[str, str] = {}
    for image in images:
        first[image.group] = min(first.get(image.group, image.content), image.content)
    lines = sorted(f"{image.content} {first[image.group] if image.group else ''}" for image in images)
    return {
        "groups": len(first.keys() - {""}),
        "images": sum(bool(image.group) for image in images),
        "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    }


def other_groups(kept: Mapping[str, Any] | None, images: Sequence[ImageRecord]) -> str:
    """Say how the groups of images differ from those that were kept.

    Args:
        kept: As `describe_groups` returned it; None where an earlier version kept nothing, with which all groups agree.
        images: As they are now.

    Returns:
        Such as "none then, 5 groups of 36 images now"; empty where the same images belong together.
    """
    now = describe_groups(images)
    if kept is None or kept["sha256"] == now["sha256"]:
        return ""
    return f"{_counted(kept)} then, {_counted(now)} now"


def _counted(told: Mapping[str, Any]) -> str:
    if not told["groups"]:
        return "none"
    return f"{told['groups']} group{'s' if told['groups'] > 1 else ''} of {told['images']} images"


def masks_digest(images: Sequence[ImageRecord], root: Path) -> str:
    """Return a hash of which images have a mask, and of how many bytes each of these files has, wherever it lies.

    Args:
        images: Of a catalogue.
        root: That its paths start from.
    """
    sizes = (f"{image.content} {(root / image.mask).stat().st_size}" for image in images if image.mask)
    return hashlib.sha256("\n".join(sorted(sizes)).encode()).hexdigest()
