"""What people mean by the names of folders: parts of a split, images beside masks."""

import re
from collections.abc import Iterable

from kth_lightning.data.catalogue import Subset
from kth_lightning.data.sources.source import SUBSETS

_TRAIN, _VAL, _TEST = ({word for word, part in SUBSETS.items() if part == name} for name in ("train", "val", "test"))
_EITHER = {"eval", "evaluation"}  # the test part beside a validation part, and where there is neither
_IMAGES = {"image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "jpegimages", "jpg", "original"}
_MASKS = {
    "mask", "masks", "segment", "segments", "segmentation", "segmentations", "segmentationclass", "annotation",
    "annotations", "label", "labels", "groundtruth", "gt", "trimap", "trimaps",
}  # fmt: skip


def subset_of(name: str, siblings: Iterable[str] = ()) -> Subset:
    """Return the part of a split that a folder's name means, such as "seg_train" or "train2017"; "" for none.

    Args:
        name: The folder's.
        siblings: Those of the folders beside it.
    """
    words, others = _words(name), set[str]().union(*map(_words, siblings))
    if words & _EITHER and not words & (_TRAIN | _VAL | _TEST):
        return "val" if others & _TEST and not others & _VAL else "test"
    parts: tuple[tuple[Subset, set[str]], ...] = (("train", _TRAIN), ("val", _VAL), ("test", _TEST))
    meant = [subset for subset, known in parts if words & known]
    return meant[0] if len(meant) == 1 else ""


def means_images(name: str) -> bool:
    """Tell whether a folder's name means images, as the one beside masks has it."""
    return _letters(name) in _IMAGES


def means_masks(name: str) -> bool:
    """Tell whether a folder's name means masks, or other notes on images."""
    return _letters(name) in _MASKS


def _words(name: str) -> set[str]:
    return {*re.findall("[a-z]+", name.lower()), _letters(name)}


def _letters(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())
