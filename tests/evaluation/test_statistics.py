import math

import numpy as np
import pytest
import torch
from torchmetrics.functional import classification as reference

from kth_lightning.data.batch import PADDING
from kth_lightning.evaluation.statistics import (
    accuracy_interval,
    confusion_matrix,
    cross_entropies,
    holm,
    kappa,
    macro_recall,
    macro_recall_estimate,
    mcnemar,
    per_class,
    summarise,
)
from kth_lightning.models.metrics import own_metrics


def drawn(images: int, classes: int, strength: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(7)
    labels = random.integers(classes, size=images)
    logits = random.normal(size=(images, classes))
    logits[np.arange(images), labels] += strength
    return labels, torch.from_numpy(logits).float().softmax(dim=1).numpy()


def test_interval_of_an_accuracy_is_wilsons():
    z, total, share = 1.959963984540054, 100, 0.95
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    reach = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    assert accuracy_interval(95, 100) == pytest.approx((centre - reach, centre + reach))


@pytest.mark.parametrize("correct", [0, 3])
def test_interval_of_an_accuracy_stays_within_0_and_1_and_has_a_width(correct: int):
    low, high = accuracy_interval(correct, 3)
    assert 0 <= low < high <= 1


@pytest.mark.parametrize("classes", [2, 19])
def test_values_are_those_of_torchmetrics_and_torch(classes: int):
    labels, probabilities = drawn(300, classes)
    found = summarise(labels, probabilities)
    target, given = torch.from_numpy(labels), torch.from_numpy(probabilities)
    expected = {
        "loss": torch.nn.functional.nll_loss(given.log(), target),
        "acc": reference.multiclass_accuracy(given, target, classes, average="micro"),
        "kappa": reference.multiclass_cohen_kappa(given, target, classes),
        "recall": reference.multiclass_recall(given, target, classes, average="macro"),
    }
    assert found["n"] == 300
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(float(value), abs=1e-6)
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]


def test_a_class_without_images_costs_nothing_of_the_macro_recall():
    labels, predictions = np.array([0, 0, 1, 4]), np.array([0, 2, 1, 4])
    each = reference.multiclass_recall(torch.tensor(predictions), torch.tensor(labels), 6, average="none")
    assert macro_recall(labels, predictions) == pytest.approx(float(each[[0, 1, 4]].mean())) == pytest.approx(2.5 / 3)
    metric = own_metrics(6)["recall"]
    metric.update(torch.tensor([*predictions, 5]), torch.tensor([*labels, PADDING]))
    assert float(metric.compute()) == pytest.approx(2.5 / 3)


def test_the_interval_of_a_macro_recall_holds_it_where_classes_have_few_images():
    of_class = np.array([100, 50, 20, 5, 2, 2, 1, 1, 1, 1])
    labels, rng, kept = np.repeat(np.arange(10), of_class), np.random.default_rng(0), 0
    for _ in range(400):
        predictions = np.where(rng.random(len(labels)) < 0.8, labels, 10)
        found = macro_recall_estimate(labels, predictions)
        assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1
        kept += found["low"] <= 0.8 <= found["high"]
    assert kept >= 0.93 * 400


def test_the_interval_of_one_class_is_wilsons():
    found = macro_recall_estimate(np.zeros(20, int), np.arange(20) // 17)
    assert (found["low"], found["high"]) == pytest.approx(accuracy_interval(17, 20))


def test_kappa_is_1_for_agreement_and_0_for_a_constant_guess():
    labels = np.array([0, 1, 2, 2])
    assert kappa(labels, labels) == 1
    assert kappa(labels, np.zeros(4, dtype=int)) == 0
    assert math.isnan(kappa(np.ones(4, dtype=int), np.ones(4, dtype=int)))


def test_bootstrap_of_the_loss_agrees_with_the_normal_interval():
    labels, probabilities = drawn(1738, 19)
    found = summarise(labels, probabilities)["loss"]
    losses = cross_entropies(labels, probabilities)
    reach = 1.96 * losses.std() / math.sqrt(len(losses))
    assert found["low"] == pytest.approx(losses.mean() - reach, abs=0.1 * reach)
    assert found["high"] == pytest.approx(losses.mean() + reach, abs=0.1 * reach)


def test_same_predictions_give_the_same_intervals():
    assert summarise(*drawn(50, 3)) == summarise(*drawn(50, 3))


def test_probability_of_zero_for_the_truth_costs_much_but_not_infinity():
    found = summarise(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]], dtype=np.float32))
    assert found["loss"]["value"] == pytest.approx(87.34 / 2, abs=0.01)


def test_one_image_has_values_but_no_bootstrapped_bounds():
    found = summarise(np.array([1]), np.array([[0.2, 0.8]]))
    assert found["loss"] == {"value": pytest.approx(-math.log(0.8)), "low": None, "high": None}
    assert found["kappa"] == {"value": None, "low": None, "high": None}
    assert found["acc"]["value"] == 1
    assert found["acc"]["low"] < 0.3


def test_no_error_leaves_kappa_without_bounds_and_accuracy_with_them():
    labels = np.array([0, 1, 2] * 10)
    found = summarise(labels, np.eye(3)[labels] * 0.7 + 0.1)
    assert found["kappa"] == {"value": 1.0, "low": None, "high": None}
    assert found["recall"]["high"] == 1
    assert found["recall"]["low"] == pytest.approx(accuracy_interval(30, 30)[0])
    assert found["acc"]["low"] == pytest.approx(accuracy_interval(30, 30)[0])


def test_diverged_model_gives_none_in_place_of_nan():
    found = summarise(np.array([0, 1]), np.full((2, 2), np.nan))
    assert found["loss"] == {"value": None, "low": None, "high": None}


def test_figures_of_each_class_are_those_of_torchmetrics():
    labels, probabilities = drawn(120, 19, strength=0.8)
    labels[labels == 3] = 4
    probabilities[:, 5] = 0
    found = per_class(labels, probabilities)
    target, given = torch.from_numpy(labels), torch.from_numpy(probabilities)
    for values, name in ((found.precision, "precision"), (found.recall, "recall"), (found.f1, "f1_score")):
        expected = getattr(reference, f"multiclass_{name}")(given, target, 19, average="none")
        np.testing.assert_allclose(values, expected, atol=1e-6)
    assert found.support.tolist() == torch.bincount(target, minlength=19).tolist()
    assert found.support[3] == found.recall[3] == found.precision[5] == 0


def test_confusion_has_true_classes_down():
    assert confusion_matrix(np.array([0, 0, 2]), np.array([0, 1, 1]), 3).tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(("first", "second"), [(0, 0), (2, 0), (3, 10), (10, 1)])
def test_paired_test_is_mcnemars_exact_one(first: int, second: int):
    right = np.array([True] * 5 + [True] * first + [False] * second)
    other = np.array([True] * 5 + [False] * first + [True] * second)
    found = mcnemar(right, other)
    assert (found.first_only, found.second_only) == (first, second)
    tail = sum(math.comb(first + second, item) for item in range(min(first, second) + 1)) / 2 ** (first + second)
    assert found.p == pytest.approx(min(1, 2 * tail))


def test_holms_correction_multiplies_by_the_tests_that_remain():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []
