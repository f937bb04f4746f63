"""Which labels are probably wrong, from what is said of each image by models that have not seen it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_PENALTIES = 10.0 ** np.arange(-3, 2.5, 0.5)
"""Of ridge regression on features whose mean squared length is 1."""


@dataclass(frozen=True)
class Suspicion:
    """Hold how much each label is to be doubted.

    Attributes:
        score: From 0, surely right, to 1, surely wrong, shape [N]; above 0.5 the image looks more like the suggested
            class than like its label.
        suggested: Index of the likeliest class beside the label, shape [N].
        order: Indices of the images, the most suspect first, shape [N].
    """

    score: npt.NDArray[np.float64]
    suggested: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]


def rank_suspects(labels: npt.NDArray[np.int64], likeness: npt.NDArray[np.floating]) -> Suspicion:
    """Rank images by how much more another class looks like them than their label does.

    Of probabilities the score is 1 less cleanlab's `normalized_margin` (Northcutt et al., 2021). docs/suspects.md sets
    rankings side by side.

    Args:
        labels: Indices of the classes that the images are said to show, shape [N].
        likeness: How much each image looks like each class, its sum 1, to models that have not seen it: probabilities,
            or what `least_squares_likeness` gives, shape [N, C].
    """
    rows = np.arange(len(labels))
    others = likeness.astype(np.float64)
    others[rows, labels] = -np.inf
    suggested = others.argmax(axis=1)
    margins = others[rows, suggested] - likeness[rows, labels]
    return Suspicion(((1 + margins) / 2).clip(0, 1), suggested, np.argsort(-margins, kind="stable"))


def least_squares_likeness(
    features: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], folds: npt.NDArray[np.int64], classes: int
) -> npt.NDArray[np.float64]:
    """Say of each image how much it looks like each class, by ridge regression on the images of the other folds.

    The penalty is the one of `_PENALTIES` with the least squared error on the images left out, by their labels as they
    are. Least squares follow a few wrong labels less than cross-entropy does, whose training drives every label home.

    Args:
        features: Of the images, shape [N, D].
        labels: Indices of the classes that the images are said to show, shape [N].
        folds: Number of each image's fold, shape [N].
        classes: C, the number of classes.

    Returns:
        Shape [N, C]; each row sums to 1, and no value is bounded.
    """
    targets = np.eye(classes)[labels]
    found = np.zeros((len(_PENALTIES), len(labels), classes))
    for fold in np.unique(folds):
        left_out = folds == fold
        known, mean = features[~left_out].astype(np.float64), targets[~left_out].mean(axis=0)
        centre = known.mean(axis=0)
        known -= centre
        spread = (known**2).sum() / len(known)
        values, axes = np.linalg.eigh(known.T @ known / spread)
        projected = axes.T @ (known.T @ (targets[~left_out] - mean)) / spread
        turned = (features[left_out] - centre) @ axes
        for position, penalty in enumerate(_PENALTIES):
            found[position, left_out] = turned @ (projected / (values + penalty)[:, None]) + mean
    return found[((found - targets) ** 2).mean(axis=(1, 2)).argmin()]
