"""Test images that are not new to what a run started from, and what that means for its figures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Leakage:
    """Count the test images of a run that are not new to the checkpoint that the run started from.

    Attributes:
        source: The checkpoint's file.
        images: Number of test images.
        trained: How many of them it was trained on; None where it does not say.
        chosen: How many others it was chosen by; None where it does not say.
    """

    source: str
    images: int
    trained: int | None
    chosen: int | None

    @property
    def sentences(self) -> list[str]:
        """Say what it means for the figures; nothing where all test images are new."""
        if self.trained is None:
            return [f"{self.source}, which the run started from, does not say which images it was trained on"]
        sentences = []
        if self.trained:
            sentences.append(
                f"{self.trained} of the {self.images} test images are among those that {self.source}, which the run "
                "started from, was TRAINED on: the figures of this run say nothing about new images; start from a "
                "checkpoint of the same split, or from none"
            )
        if self.chosen:
            sentences.append(
                f"{self.chosen} of the {self.images} test images are among those by which {self.source}, which the run "
                "started from, was chosen"
            )
        return sentences
