"""The training images that an image looks like to a classifier."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from kth_lightning.errors import InputError
from kth_lightning.evaluation.novelty import Novelty
from kth_lightning.io.image_name import content_key, image_name
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.split_file import read_split
from kth_lightning.models.checkpoint import read_checkpoint

SHOWN = 3


@dataclass(frozen=True)
class Nearest:
    """Describe a training image near another image.

    Attributes:
        path: As in the run's splits.csv.
        label: Its class.
        distance: 1 less the cosine of the angle between the two.
        box: The part of the file that it is; empty for the whole.
    """

    path: str
    label: str
    distance: float
    box: str = ""

    @property
    def name(self) -> str:
        """Return what tells it from others: its path, and its box where it has one."""
        return image_name(self.path, self.box)


class TrainingImages:
    """Tell how novel images are, and which training images are nearest to them.

    Args:
        checkpoint: A run's best checkpoint.

    Attributes:
        novelty: None where the checkpoint has no summary of its training images.

    Raises:
        InputError: The checkpoint is damaged.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.novelty = Novelty.of(read_checkpoint(checkpoint))
        splits = RunFolder(checkpoint.absolute().parent.parent).splits
        try:
            rows = read_split(splits) if self.novelty else []
        except InputError:  # the checkpoint was taken out of its run folder
            rows = []
        self._by_key = {content_key(row.content): row for row in rows if row.part == "train"}

    def share(self, vector: npt.NDArray[np.float32], logits: npt.NDArray[np.float32]) -> float | None:
        """Return the novelty of an image of which `embed_features` made a vector [D], and the model logits [C]."""
        given = [torch.from_numpy(values)[None] for values in (vector, logits)]
        return None if self.novelty is None else float(self.novelty(*given))

    def nearest(self, vector: npt.NDArray[np.float32]) -> list[Nearest]:
        """List the three nearest training images, as far as their run's splits.csv is at hand and names them."""
        if self.novelty is None or not self._by_key:
            return []
        distances, keys = self.novelty.nearest(torch.from_numpy(vector)[None], SHOWN)
        found = [
            (self._by_key.get(key), value) for key, value in zip(keys[0].tolist(), distances[0].tolist(), strict=True)
        ]
        return [Nearest(row.path, row.label, max(0.0, value), row.box) for row, value in found if row is not None]
