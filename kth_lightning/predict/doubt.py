"""When a label is withheld, and which classes a set holds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kth_lightning.errors import InputError
from kth_lightning.evaluation import prediction_sets, selective
from kth_lightning.evaluation.validation_scores import ValidationScores, validation_scores

UNKNOWN = "unknown"
"""The label of an image whose class is not sure enough."""


class Doubt:
    """Withhold labels that are not sure enough, and list the classes that an image may show.

    Args:
        checkpoint: As `read_checkpoint` gives it.
        class_names: C of them.
        temperature: Divides the logits.
        min_accuracy: Share of the given labels that are to be right, with 95 % confidence.
        min_probability: Of a given label; instead of `min_accuracy`.
        coverage: Share of the sets that are to hold the true class.

    Attributes:
        threshold: Lowest probability at which a label is given; None where all are.
        limits: For sets, as `fit_sets` chooses them; None where none are asked for.
        notes: What was chosen, a sentence each.

    Raises:
        InputError: A share is out of its range, or the checkpoint's validation images do not allow what is asked for.
    """

    def __init__(
        self,
        checkpoint: dict[str, Any],
        class_names: Sequence[str],
        temperature: float,
        min_accuracy: float | None,
        min_probability: float | None,
        coverage: float | None,
    ) -> None:
        given = {"min_accuracy": min_accuracy, "min_probability": min_probability, "coverage": coverage}
        for name, share in given.items():
            if share is not None and not 0 < share < 1:
                raise InputError(f"--{name} {share}: give a share between 0 and 1, such as .97")
        if min_accuracy is not None and min_probability is not None:
            raise InputError("--min_accuracy and --min_probability do not go together; leave one of them out")
        if UNKNOWN in class_names and (min_accuracy or min_probability):
            flag = "--min_accuracy" if min_accuracy else "--min_probability"
            raise InputError(f"{flag}: the checkpoint has a class {UNKNOWN!r}, which could not be told from none")
        self.class_names = class_names
        self.threshold = min_probability
        self.limits: npt.NDArray[np.float64] | None = None
        self.notes: list[str] = []
        if min_accuracy is not None:
            scores = validation_scores(checkpoint, temperature, "--min_accuracy")
            chosen = _threshold(scores, min_accuracy)
            self.threshold = chosen.probability
            self.notes.append(
                f"labels are written from a probability of {chosen.probability:.6g} up, as for {chosen.kept} of the "
                f"{chosen.total} validation images; {chosen.right} of these are right, so that with 95 % confidence at "
                f"least {100 * min_accuracy:g} % of such labels are right"
            )
        if coverage is not None:
            scores = validation_scores(checkpoint, temperature, "--coverage")
            self.limits = _limits(scores, coverage)
            alone = prediction_sets.classes_alone(scores.labels, len(class_names), coverage)
            each = (
                f"; for {alone} of the {len(class_names)} classes, which {'has' if alone == 1 else 'have'} enough of "
                "them, also of the class's images alone"
            )
            self.notes.append(
                f"sets should hold the true class of {100 * coverage:g} % of all images, from {len(scores.labels)} "
                f"validation images, on average over draws of these{each if alone else ''}"
            )

    def withheld(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Tell of probabilities [B, C] which are not sure enough, shape [B]."""
        return probabilities.max(axis=1) < (0 if self.threshold is None else self.threshold)

    def sets(self, probabilities: npt.NDArray[np.float64]) -> list[tuple[str, ...] | None]:
        """List the classes in the set of each of B images, the most probable first; None where none are asked for."""
        if self.limits is None:
            return [None] * len(probabilities)
        inside = prediction_sets.in_sets(probabilities, self.limits)
        order = np.argsort(-probabilities, axis=1, kind="stable")
        return [
            tuple(self.class_names[item] for item in ranks if row[item])
            for ranks, row in zip(order, inside, strict=True)
        ]


def _threshold(scores: ValidationScores, accuracy: float) -> selective.Threshold:
    chosen = selective.choose_threshold(scores.confidences, scores.right, accuracy)
    if chosen is not None:
        return chosen
    best, total = selective.highest_accuracy(scores.confidences, scores.right, accuracy), len(scores.labels)
    less = f"give --min_accuracy {best:g}, the highest below it that they show" if best else ""
    needed = selective.fewest_images(accuracy)
    if total < needed:
        raise InputError(
            f"--min_accuracy {accuracy:g}: to show it with 95 % confidence takes {needed} validation images at least, "
            f"all of them classified correctly, and the checkpoint has {total}; train with more of them "
            "(--data.val_size)" + (f", or {less}" if less else "")
        )
    raise InputError(
        f"--min_accuracy {accuracy:g}: the {total} validation images do not show it at any threshold, since too many "
        f"of the surest are wrong; {less or 'leave it out'}"
    )


def _limits(scores: ValidationScores, coverage: float) -> npt.NDArray[np.float64]:
    limits = prediction_sets.fit_sets(scores.labels, scores.probabilities, coverage)
    if limits is not None:
        return limits
    total = len(scores.labels)
    highest = int(1000 * total / (total + 1)) / 1000
    raise InputError(
        f"--coverage {coverage:g}: it takes {prediction_sets.fewest_images(coverage)} validation images at least, and "
        f"the checkpoint has {total}; give --coverage {highest:g} or less, or train with more of them (--data.val_size)"
    )
