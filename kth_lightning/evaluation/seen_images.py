"""Which images a checkpoint has seen, and what that means for testing it or what starts from it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kth_lightning.data.module import ImageData
from kth_lightning.data.split import Part
from kth_lightning.evaluation.leakage import Leakage

ImageKeys = dict[str, Tensor]
"""For parts of a split a number an image, int64 [N], that depends on its content alone."""


def image_keys(data: ImageData) -> ImageKeys:
    """Return the images of "train", "val" and "test"."""
    parts: tuple[Part, ...] = ("train", "val", "test")
    return {part: data.keys[data.split.indices(part)] for part in parts}


def seen_images(checkpoint: dict[str, Any]) -> ImageKeys | None:
    """Return what a checkpoint has been trained on ("train") and chosen by ("val"), and what it started from likewise.

    Returns:
        None where the checkpoint does not say.
    """
    own = checkpoint.get("images")
    if own is None:
        return None
    inherited = checkpoint.get("inherited") or {}
    return {part: torch.cat([own[part], *([inherited[part]] if inherited else [])]) for part in ("train", "val")}


@dataclass(frozen=True)
class Origin:
    """Hold what a run started from.

    Attributes:
        source: File of the checkpoint.
        seen: As `seen_images` gives it.
    """

    source: str
    seen: ImageKeys | None

    def leakage(self, data: ImageData) -> Leakage:
        """Count what a run tests on and this has seen."""
        test = image_keys(data)["test"]
        if self.seen is None:
            return Leakage(self.source, len(test), None, None)
        trained = torch.isin(test, self.seen["train"])
        chosen = torch.isin(test, self.seen["val"]) & ~trained
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
    mine = image_keys(data)
    sentences = []
    if whole:
        boxes = any(data.catalogue.images[position].box for position in data.split.indices(part))
        if boxes != bool(checkpoint.get("boxed")):
            trained_on, these, way = (
                ("whole images", "boxes", "leave out") if boxes else ("boxes", "whole images", "give")
            )
            sentences.append(f"the checkpoint was trained on {trained_on}, and these are {these}; {way} --data.boxes")
    trained = int(torch.isin(mine[part], seen["train"]).sum())
    if trained:
        sentences.append(
            f"{trained} of the {len(mine[part])} {name} images are among those that this checkpoint was TRAINED on: "
            "its figures say nothing about new images; "
            + ("the report judges the others alone" if whole else "give --data.splits with the splits.csv of its run")
        )
    chosen = int(torch.isin(mine[part], seen["val"]).sum()) if part == "test" else 0
    if chosen:
        sentences.append(f"{chosen} of the {len(mine[part])} test images are those by which this checkpoint was chosen")
    if whole:
        return sentences
    now, then = torch.cat(list(mine.values())), torch.cat(list(checkpoint["images"].values()))
    new, gone = int((~torch.isin(now, then)).sum()), int((~torch.isin(then, now)).sum())
    if new or gone:
        sentences.append(f"the data is not what it was in training: {new} images are new and {gone} are gone")
    return sentences
