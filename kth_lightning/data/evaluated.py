"""The data module of an evaluation: images that a trained classifier is tested on, in the classes that it knows."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kth_lightning.data.catalogue import Catalogue
from kth_lightning.data.module import ImageData
from kth_lightning.data.prepare import Prepared, prepare
from kth_lightning.data.split import Part, Split
from kth_lightning.errors import InputError

_PURPOSE = {"val": "validation", "test": "testing"}
_CLASSES_NAMED = 5
_UNKNOWN = -1


class EvaluatedImages(ImageData):
    """Images in the classes of a classifier that is trained already.

    A class that the images lack costs nothing. Images of classes that the classifier does not know are for nothing, and
    are counted by themselves.

    Args:
        known: The classes that the classifier tells apart, in the order of its outputs.
        part: What the images are for, "val" or "test".
        whole: Take every image, or those that the source prescribes for this part where it prescribes some, and split
            nothing.
        settings: Of `ImageData`.

    Raises:
        InputError: A setting does not make sense.
    """

    def __init__(self, known: list[str], part: Literal["val", "test"], whole: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self.known = known
        self.part = part
        self.whole = whole

    @cached_property
    def prepared(self) -> Prepared:
        """Fetch the images, and read every one, where that was not done before.

        Their own values decide no range: a classifier that has none, trained on 8 bits, takes them as `predict` does.
        """
        return self.grouped(prepare(self.source, self.cache_dir, self.options, self.corrections, for_training=False))

    def divide(self) -> tuple[Catalogue, Split]:
        """Return the images, and which of them are evaluated: those of known classes.

        Raises:
            InputError: There are none.
        """
        catalogue, split = self._whole() if self.whole else super().divide()
        labels = np.array([image.label for image in catalogue.images])
        of_part, is_known = np.array(split.parts) == self.part, np.isin(labels, self.known)
        if not (of_part & is_known).any():
            raise InputError(
                f"none of the {of_part.sum()} images is of a class that the checkpoint knows: the images show "
                f"{_listed(sorted({*labels[of_part].tolist()}))}, and it knows {_listed(self.known)}; name the classes "
                "as in training"
            )
        self._unknown = np.flatnonzero(of_part & ~is_known)
        parts: list[Part] = [
            "unused" if evaluated and not known else part
            for evaluated, known, part in zip(of_part, is_known, split.parts, strict=True)
        ]
        return catalogue, Split(tuple(parts))

    def _whole(self) -> tuple[Catalogue, Split]:
        catalogue = self.prepared.catalogue
        prescribed = any(image.subset == self.part for image in catalogue.images)
        taken = (not prescribed or image.subset == self.part for image in catalogue.images)
        return catalogue, Split(tuple(self.part if item else "unused" for item in taken))

    @property
    def class_names(self) -> list[str]:
        """List the classes in the order of the targets: the classifier's."""
        return self.known

    @cached_property
    def labels(self) -> Tensor:
        """Return the target of every image of the catalogue, int64 [N]; -1 for a class that is not known."""
        position = {name: number for number, name in enumerate(self.known)}
        return torch.tensor([position.get(image.label, _UNKNOWN) for image in self.catalogue.images])

    @property
    def unknown(self) -> NDArray[np.int64]:
        """Return the indices in the catalogue of the part's images of classes that are not known, int64 [M]."""
        assert self.split  # whose making finds them
        return self._unknown

    @cached_property
    def unknown_classes(self) -> Counter[str]:
        """Count the images of each class that is not known."""
        return Counter(self.catalogue.images[position].label for position in self.unknown)

    @property
    def missing_classes(self) -> list[str]:
        """List the known classes that no image is of."""
        found = {self.catalogue.images[position].label for position in self.split.indices(self.part)}
        return [name for name in self.known if name not in found]

    def describe(self) -> str:
        """Say in one line what is evaluated."""
        count, used = len(self.split.indices(self.part)), len(self.catalogue.images)
        others = used - count - len(self.unknown)
        left = f"; {_images(others, 'other ')} not for {_PURPOSE[self.part]}" if others else ""
        lack = f"; no image shows {', '.join(names)}" if (names := self.missing_classes) else ""
        unknown = ""
        if classes := self.unknown_classes:
            named = _listed([f"{name} ({number})" for name, number in classes.most_common()])
            of = "a class" if len(classes) == 1 else "classes"
            unknown = f"; {_images(classes.total())} of {of} that the checkpoint does not know: {named}"
        known = f"{len(self.known) - len(names)} of its {len(self.known)} classes"
        return f"{count} image{'' if count == 1 else 's'} in {known}{left}{unknown}{lack}"


def _images(number: int, kind: str = "") -> str:
    return f"1 {kind}image is" if number == 1 else f"{number} {kind}images are"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _CLASSES_NAMED} more" if len(names) > _CLASSES_NAMED else ""
    return f"{', '.join(names[:_CLASSES_NAMED])}{more}"
