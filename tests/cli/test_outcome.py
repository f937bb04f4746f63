import numpy as np

from kth_lightning.cli.outcome import worst_classes
from kth_lightning.io.predictions_file import Predictions


def test_the_classes_with_the_most_mistakes_are_named_not_those_of_the_lowest_share() -> None:
    right = {"bear": (2, 1), "cow": (10, 6), "deer": (5, 4), "lion": (9, 9), "wolf": (3, 2)}  # images, of them right
    names = list(right)
    labels = np.repeat(np.arange(5), [images for images, _ in right.values()])
    hits = np.concatenate([np.arange(images) < hit for images, hit in right.values()])
    probabilities = np.eye(5)[np.where(hits, labels, (labels + 1) % 5)]
    paths = [f"{number}.png" for number in range(len(labels))]
    blank = [""] * len(labels)
    assert worst_classes(Predictions(paths, names, labels, probabilities, blank, blank)) == (
        "cow (10 test images, 6 right), bear (2 test images, 1 right), wolf (3 test images, 2 right)"
    )
