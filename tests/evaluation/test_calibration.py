import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from kth_lightning.evaluation.calibration import (
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
    reliability,
)


def drawn(images: int, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels from the very probabilities that the logits stand for: calibrated at a temperature of 1."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(images, classes)) * 2
    probabilities = torch.from_numpy(logits).softmax(1).numpy()
    labels = np.array([random.choice(classes, p=row) for row in probabilities])
    return labels, logits


def loss(labels: np.ndarray, logits: np.ndarray) -> float:
    return float(torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_fit_finds_the_temperature_that_logits_were_multiplied_by(temperature: float):
    labels, logits = drawn(4000)
    assert fit_temperature(labels, (logits * temperature).astype(np.float32)) == pytest.approx(temperature, rel=0.1)


@pytest.mark.parametrize("seed", range(20))
def test_fitted_temperature_never_makes_the_validation_loss_worse(seed: int):
    labels, logits = drawn(12, seed=seed)
    assert loss(labels, logits / fit_temperature(labels, logits)) <= loss(labels, logits) + 1e-9


def test_a_few_images_that_are_all_right_do_not_ask_for_boundless_confidence():
    logits = np.random.default_rng(0).normal(size=(30, 5)) * 3
    assert 0.4 < fit_temperature(logits.argmax(1), logits) < 1


def test_temperature_stays_1_where_logits_are_no_numbers():
    assert fit_temperature(np.array([1, 0]), np.full((2, 2), np.nan)) == 1


def test_temperature_stays_within_its_bounds():
    labels, logits = np.array([0, 1] * 1000), np.array([[-9.0, 9.0], [9.0, -9.0]] * 1000)
    assert fit_temperature(labels, logits) == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_probabilities_follow_the_temperature_as_logits_do(temperature: float):
    _, logits = drawn(50)
    expected = torch.from_numpy(logits / temperature).softmax(1).numpy()
    found = apply_temperature(torch.from_numpy(logits).softmax(1).numpy(), temperature)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_probability_of_zero_stays_a_number():
    found = apply_temperature(np.array([[1.0, 0.0]], dtype=np.float32), 2.0)
    assert np.isfinite(found).all()
    assert found.sum() == pytest.approx(1)


@pytest.mark.parametrize(("classes", "bins"), [(2, 10), (19, 15)])
def test_calibration_error_is_that_of_torchmetrics(classes: int, bins: int):
    labels, logits = drawn(500, classes)
    probabilities = torch.from_numpy(logits * 2).softmax(1)
    expected = multiclass_calibration_error(probabilities, torch.from_numpy(labels), classes, n_bins=bins)
    assert expected > 0.05
    assert expected_calibration_error(labels, probabilities.numpy(), bins) == pytest.approx(float(expected), abs=1e-6)


def test_certainty_counts_in_the_last_bin():
    counts, right, confidence = reliability(np.array([0, 1]), np.array([[1.0, 0.0], [0.98, 0.02]]))
    assert (counts[-1], right[-1], confidence[-1]) == (2, 1, pytest.approx(1.98))
    assert counts.sum() == 2


def test_diverged_model_has_no_calibration_error():
    assert math.isnan(expected_calibration_error(np.array([0, 1]), np.full((2, 2), np.nan)))
