"""Temperature scaling against an independent fit."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from workers.metrics.calibration import fit_temperature, negative_log_likelihood


def _sharpened(
    temperature: float, classes: int, count: int = 4000
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits ``temperature`` times as large as they should be, and classes drawn from them."""
    generator = np.random.default_rng(8)
    honest_NC = generator.normal(0, 1.5, (count, classes))
    drawn_N1 = generator.random((count, 1))
    actual_N = (softmax(honest_NC, axis=1).cumsum(axis=1) < drawn_N1).sum(axis=1)
    return (honest_NC * temperature).astype(np.float32), actual_N.astype(np.int64)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_wrong_sharpness_is_found_and_undone(temperature: float, classes: int) -> None:
    logits, actual = _sharpened(temperature, classes)
    found = fit_temperature(logits, actual)
    assert found == pytest.approx(temperature, rel=0.06)
    assert fit_temperature(logits, actual) == found
    best = negative_log_likelihood(logits, actual, found)
    for other in (1.0, temperature, found * 0.99, found * 1.01):
        assert best <= negative_log_likelihood(logits, actual, other) + 1e-9


def test_two_classes_equal_a_logistic_regression_without_intercept() -> None:
    logits, actual = _sharpened(2.5, 2)
    margin = (logits[:, 1] - logits[:, 0]).astype(np.float64)[:, None]
    fitted = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8).fit(margin, actual)
    assert fit_temperature(logits, actual) == pytest.approx(1 / fitted.coef_[0, 0], abs=1e-4)


def test_likelihood_equals_scikit_learn() -> None:
    logits, actual = _sharpened(2.0, 3, 50)
    expected = log_loss(actual, softmax(logits.astype(np.float64) / 1.7, axis=1))
    assert negative_log_likelihood(logits, actual, 1.7) == pytest.approx(expected)


def test_nothing_is_fitted_where_there_is_nothing_to_fit() -> None:
    logits, actual = _sharpened(2.0, 3, 60)
    assert fit_temperature(logits, np.ones_like(actual)) == 1.0
    separable = (np.eye(3)[actual] * 2).astype(np.float32)
    assert fit_temperature(separable, actual) == 1.0
    assert fit_temperature(-separable, actual) == 1.0
    assert fit_temperature(np.zeros((60, 3), np.float32), actual) == 1.0
