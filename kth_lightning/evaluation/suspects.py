"""Which labels are probably wrong, from predictions of models that have not seen the images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Suspicion:
    """Hold how much each label is to be doubted.

    Attributes:
        score: From 0, surely right, to 1, surely wrong, shape [N]; above 0.5 the image looks more like the suggested
            class than like its label.
        suggested: Index of the most probable class beside the label, shape [N].
        order: Indices of the images, the most suspect first, shape [N].
    """

    score: npt.NDArray[np.float64]
    suggested: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]


def rank_suspects(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.floating]) -> Suspicion:
    """Rank images by how much more another class looks like them than their label does.

    The score is 1 less cleanlab's `normalized_margin` (Northcutt et al., 2021).

    Args:
        labels: Indices of the classes that the images are said to show, shape [N].
        probabilities: Of models that have not seen the image, shape [N, C].
    """
    rows = np.arange(len(labels))
    others = probabilities.astype(np.float64)
    others[rows, labels] = -1
    suggested = others.argmax(axis=1)
    score = (1 + others[rows, suggested] - probabilities[rows, labels]) / 2
    return Suspicion(score, suggested, np.argsort(-score, kind="stable"))
