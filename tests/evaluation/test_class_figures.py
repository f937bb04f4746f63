import numpy as np
import pytest

from kth_lightning.evaluation.class_figures import class_figures
from kth_lightning.evaluation.clusters import cluster_numbers, clustered_accuracy_interval
from kth_lightning.evaluation.statistics import accuracy_interval, macro_recall

LABELS = np.array([0] * 8 + [1] * 4 + [2] * 2)
PREDICTIONS = np.array([0] * 7 + [1] + [1] * 3 + [0] + [0] * 2)
NAMES = ["ant", "bee", "cat", "dog"]


def test_shares_have_wilsons_intervals() -> None:
    found = {row["class"]: row for row in class_figures(LABELS, PREDICTIONS, NAMES, [""] * 14)}
    assert [found[name]["n"] for name in NAMES] == [8, 4, 2, 0]
    low, high = accuracy_interval(7, 8)
    assert found["ant"]["recall"] == {"value": 7 / 8, "low": low, "high": high}
    low, high = accuracy_interval(7, 10)
    assert found["ant"]["precision"] == {"value": 7 / 10, "low": low, "high": high}
    assert found["ant"]["f1"] == pytest.approx(2 * 7 / (8 + 10))
    assert found["cat"]["recall"]["value"] == found["cat"]["f1"] == 0
    assert found["cat"]["precision"] is None
    assert found["dog"] == {"class": "dog", "n": 0, "recall": None, "precision": None, "f1": None}
    mean = np.mean([found[name]["recall"]["value"] for name in NAMES[:3]])
    assert mean == pytest.approx(macro_recall(LABELS, PREDICTIONS))


def test_where_images_have_groups_intervals_are_over_them() -> None:
    groups = ["a"] * 4 + ["b"] * 4 + ["a", "b", "c", "c"] + ["", ""]
    found = class_figures(LABELS, PREDICTIONS, NAMES, groups)
    own = LABELS == 0
    clusters = cluster_numbers(np.array(groups)[own].tolist())
    assert clusters is not None
    low, high = clustered_accuracy_interval((LABELS == PREDICTIONS)[own], clusters)
    assert found[0]["recall"] == {"value": 7 / 8, "low": low, "high": high}
    assert high - low > np.ptp(accuracy_interval(7, 8))
