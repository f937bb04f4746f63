"""Which images a checkpoint has seen, and what that means for testing it or what starts from it."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from kth_lightning.data.catalogue import ImageRecord
from kth_lightning.data.module import ImageData
from kth_lightning.data.split import Part
from kth_lightning.evaluation.leakage import Leakage

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
    return torch.tensor([int(image.sha256[:16], 16) >> 1 for image in images], dtype=torch.int64)


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
        known = self.keys[part]
        return torch.isin(data.keys, known) | torch.isin(_of_files(data.catalogue.images), known)


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
    trained = int(seen.among(data, "train")[index].sum())
    if trained:
        sentences.append(
            f"{trained} of the {len(index)} {name} images are among those that this checkpoint was TRAINED on: "
            "its figures say nothing about new images; "
            + ("the report judges the others alone" if whole else "give --data.splits with the splits.csv of its run")
        )
    chosen = int(seen.among(data, "val")[index].sum()) if part == "test" else 0
    if chosen:
        sentences.append(f"{chosen} of the {len(index)} test images are those by which this checkpoint was chosen")
    if whole:
        return sentences
    now, then = torch.cat(list(image_keys(data).values())), torch.cat(list(checkpoint["images"].values()))
    new, gone = int((~torch.isin(now, then)).sum()), int((~torch.isin(then, now)).sum())
    if new or gone:
        sentences.append(f"the data is not what it was in training: {new} images are new and {gone} are gone")
    return sentences
