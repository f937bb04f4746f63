"""Which images a checkpoint has seen, and what that means for testing it."""

from typing import Any

import torch
from torch import Tensor

from kth_lightning.data.module import ImageData
from kth_lightning.data.split import Part

SplitKeys = dict[str, Tensor]
"""For "train", "val" and "test" a number an image, int64 [N], that depends on its content alone."""


def split_keys(data: ImageData) -> SplitKeys:
    """Return the images of each part."""
    parts: tuple[Part, ...] = ("train", "val", "test")
    return {part: data.keys[data.split.indices(part)] for part in parts}


def leakage_warnings(checkpoint: dict[str, Any], data: ImageData, part: Part) -> list[str]:
    """Say why a checkpoint's figures on a part of the data would not be what they seem.

    Args:
        checkpoint: A completed one; others are not objected to.
        data: What it is about to be evaluated on.
        part: "val" or "test".

    Returns:
        Sentences, none where the images are those that the part had in training, or new ones.
    """
    seen: SplitKeys | None = checkpoint.get("images")
    if seen is None:
        return []
    mine = split_keys(data)
    name = {"val": "validation", "test": "test"}[part]
    found = []
    trained = int(torch.isin(mine[part], seen["train"]).sum())
    if trained:
        found.append(
            f"{trained} of the {len(mine[part])} {name} images are among those that this checkpoint was TRAINED on: "
            "its figures say nothing about new images; give --data.splits with the splits.csv of its run"
        )
    chosen = int(torch.isin(mine[part], seen["val"]).sum()) if part == "test" else 0
    if chosen:
        found.append(f"{chosen} of the {len(mine[part])} test images are those by which this checkpoint was chosen")
    now, then = torch.cat(list(mine.values())), torch.cat(list(seen.values()))
    new, gone = int((~torch.isin(now, then)).sum()), int((~torch.isin(then, now)).sum())
    if new or gone:
        found.append(f"the data is not what it was in training: {new} images are new and {gone} are gone")
    return found
