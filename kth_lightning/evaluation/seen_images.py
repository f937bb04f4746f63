"""Which images a checkpoint has seen, and what that means for testing it or what starts from it."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kth_lightning.data.catalogue import ImageRecord
from kth_lightning.data.module import ImageData
from kth_lightning.data.split import Part
from kth_lightning.evaluation.leakage import Leakage
from kth_lightning.io.image_name import content_key

ImageKeys = dict[str, Tensor]
"""For parts of a split a number an image, int64 [N], that depends on its content alone."""


def image_keys(data: ImageData) -> ImageKeys:
    """Return the images of "train", "val" and "test": of a box, its file's content and itself."""
    parts: tuple[Part, ...] = ("train", "val", "test")
    return {part: data.keys[data.split.indices(part)] for part in parts}


def file_keys(data: ImageData, images: ImageKeys) -> ImageKeys:
    """Return the files that the images of "train" and "val" are, or are boxes of.

    Args:
        data: The images.
        images: As `image_keys` gives them, whose tensors are taken where no image is a box: they are stored once.
    """
    parts: tuple[Part, ...] = ("train", "val")
    if not any(image.box for image in data.catalogue.images):
        return {part: images[part] for part in parts}
    keys = _of_files(data.catalogue.images)
    return {part: keys[data.split.indices(part)] for part in parts}


def _of_files(images: tuple[ImageRecord, ...]) -> Tensor:
    """Return a number for every image that its file's bytes alone decide, as `image_keys` has it without boxes."""
    return torch.tensor([content_key(image.sha256) for image in images], dtype=torch.int64)


@dataclass(frozen=True)
class SeenImages:
    """Hold what a checkpoint has seen.

    Attributes:
        keys: Of images, and of files, that it has been trained on ("train") and chosen by ("val").
        complete: Whether an image of which neither is there is new to it. Earlier versions kept no files of boxes: to
            one of their checkpoints that was trained on boxes, another box of the same photograph seems new.
    """

    keys: ImageKeys
    complete: bool

    def among(self, data: ImageData, part: Literal["train", "val"]) -> Tensor:
        """Tell which images of the catalogue it has been trained on, or chosen by: bool [N].

        Files are compared byte for byte: the same photograph in another size or format is not known again.
        """
        return known_again(data, self.keys[part])


def known_again(data: ImageData, known: Tensor) -> Tensor:
    """Tell which images of the catalogue, or the files that they are boxes of, are among such numbers: bool [N]."""
    return torch.isin(data.keys, known) | torch.isin(_of_files(data.catalogue.images), known)


@dataclass(frozen=True)
class KnownImages:
    """Tell of evaluated images what they were to a checkpoint, each in one way at most; all bool [N].

    Attributes:
        trained: It was trained on them.
        chosen: Its epoch was chosen by them.
        tested: They are in the test of its own run.
    """

    trained: npt.NDArray[np.bool_]
    chosen: npt.NDArray[np.bool_]
    tested: npt.NDArray[np.bool_]

    @property
    def unseen(self) -> npt.NDArray[np.bool_]:
        """Tell which it was neither trained on nor chosen by."""
        return ~(self.trained | self.chosen)

    @property
    def new(self) -> npt.NDArray[np.bool_]:
        """Tell which of the unseen ones are not in its run's own test either."""
        return self.unseen & ~self.tested


def known_images(data: ImageData, index: Tensor, seen: SeenImages | None, tested: Tensor) -> KnownImages:
    """Tell what evaluated images were to a checkpoint.

    Args:
        data: The images.
        index: Of the N evaluated ones in its catalogue, int64 [N].
        seen: What the checkpoint has seen; None where it does not say.
        tested: Numbers of the images, or their files, that its own run tested it on, int64 [M].
    """
    if seen is None:
        return KnownImages(*(np.zeros(len(index), bool) for _ in range(3)))
    trained, chosen = (seen.among(data, part)[index].numpy() for part in ("train", "val"))
    others = ~(trained | chosen)
    return KnownImages(trained, chosen & ~trained, known_again(data, tested)[index].numpy() & others)


def seen_images(checkpoint: dict[str, Any]) -> SeenImages | None:
    """Return what a checkpoint has been trained on and chosen by, and what it started from likewise.

    Returns:
        None where the checkpoint does not say.
    """
    own = checkpoint.get("images")
    if own is None:
        return None
    files, inherited = checkpoint.get("files"), checkpoint.get("inherited")
    known = [item for item in (own, files, inherited) if item]
    keys = {part: torch.cat([item[part] for item in known]).unique() for part in ("train", "val")}
    started_unknown = "inherited" in checkpoint and inherited is None
    return SeenImages(keys, not started_unknown and (files is not None or not checkpoint.get("boxed")))


@dataclass(frozen=True)
class Origin:
    """Hold what a run started from.

    Attributes:
        source: File of the checkpoint.
        seen: As `seen_images` gives it.
    """

    source: str
    seen: SeenImages | None

    @classmethod
    def resumed(cls, source: str, checkpoint: dict[str, Any]) -> "Origin":
        """Return what a checkpoint of the run itself keeps of its origin."""
        inherited = checkpoint.get("inherited")
        return cls(source, None if inherited is None else SeenImages(inherited, complete=True))

    @property
    def inherited(self) -> ImageKeys | None:
        """Return what a checkpoint of the run keeps of this; None where it is not wholly known."""
        return self.seen.keys if self.seen is not None and self.seen.complete else None

    def leakage(self, data: ImageData) -> Leakage:
        """Count what a run tests on and this has seen."""
        test = data.split.indices("test")
        if self.seen is None:
            return Leakage(self.source, len(test), None, None)
        trained = self.seen.among(data, "train")[test]
        chosen = self.seen.among(data, "val")[test] & ~trained
        if not self.seen.complete and not trained.any():
            return Leakage(self.source, len(test), None, None)
        return Leakage(self.source, len(test), int(trained.sum()), int(chosen.sum()))


def leakage_warnings(checkpoint: dict[str, Any], data: ImageData, part: Part, whole: bool) -> list[str]:
    """Say why a checkpoint's figures on a part of the data would not be what they seem.

    Args:
        checkpoint: Which is about to be evaluated.
        data: What it is about to be evaluated on.
        part: "val" or "test".
        whole: Whether these are images of their own, and not the part of a split that training had too.

    Returns:
        Sentences, none where the images are those that the part had in training, or new ones.
    """
    seen, name = seen_images(checkpoint), {"val": "validation", "test": "test"}[part]
    if seen is None:
        return ["the checkpoint does not say which images it was trained on: its figures may be of those"]
    index = data.split.indices(part)
    sentences = []
    if whole:
        boxes = any(data.catalogue.images[position].box for position in index)
        if boxes != bool(checkpoint.get("boxed")):
            trained_on, these, way = (
                ("whole images", "boxes", "leave out") if boxes else ("boxes", "whole images", "give")
            )
            sentences.append(f"the checkpoint was trained on {trained_on}, and these are {these}; {way} --data.boxes")
    trained, chosen = (seen.among(data, part)[index] for part in ("train", "val"))
    if count := int(trained.sum()):
        others = len(index) - int((trained | chosen).sum())
        judged = f"the report begins with the {others} others" if others else "no other image is left"
        sentences.append(
            f"{count} of the {len(index)} {name} images are among those that this checkpoint was TRAINED on: "
            "its figures say nothing about new images; "
            + (
                "give --data.splits with the splits.csv of its run"
                if not whole
                else judged
                if seen.complete
                else "whether the others are new to it is not known"
            )
        )
    by = int(chosen.sum()) if part == "test" else 0
    if by:
        sentences.append(f"{by} of the {len(index)} test images are those by which this checkpoint was chosen")
    if whole:
        return sentences
    now, then = torch.cat(list(image_keys(data).values())), torch.cat(list(checkpoint["images"].values()))
    new, gone = int((~torch.isin(now, then)).sum()), int((~torch.isin(then, now)).sum())
    if new or gone:
        sentences.append(f"the data is not what it was in training: {new} images are new and {gone} are gone")
    return sentences
