"""Brier score, log loss and calibration error against scikit-learn and a plain loop."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk

from workers.metrics.classification import Scored, classification_figures
from workers.metrics.reliability import (
    BINS,
    Bins,
    calibration_error,
    class_calibration_errors,
    losses,
)

Floats = NDArray[np.float64]


def _drawn(classes: int, count: int = 500, seed: int = 0) -> tuple[NDArray[np.int64], Floats]:
    generator = np.random.default_rng(seed)
    actual = generator.integers(0, classes, count)
    scores = generator.dirichlet(np.ones(classes), count)
    return actual, scores


def _looped_error(claims: list[float], came_true: list[bool]) -> float:
    """Expected calibration error by the letter, bin by bin."""
    error = 0.0
    for place in range(15):
        low, high = place / 15, (place + 1) / 15
        inside = [
            (claim, truth)
            for claim, truth in zip(claims, came_true, strict=True)
            if low < claim <= high or (place == 0 and claim == 0)
        ]
        if inside:
            claimed = sum(claim for claim, _ in inside) / len(inside)
            right = sum(truth for _, truth in inside) / len(inside)
            error += len(inside) / len(claims) * abs(claimed - right)
    return error


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_losses_equal_scikit_learn(classes: int) -> None:
    actual, scores = _drawn(classes)
    brier, nll = losses(actual, scores).mean(axis=0)
    labels = list(range(classes))
    expected = sk.brier_score_loss(actual, scores, labels=labels, scale_by_half="auto")
    assert brier == pytest.approx(expected)
    assert nll == pytest.approx(sk.log_loss(actual, scores, labels=labels))


def test_a_certain_mistake_costs_much_but_not_everything() -> None:
    scores = np.asarray([[1, 0], [0, 1]], np.float32)
    surprises = losses(np.zeros(2, np.int64), scores)[:, 1]
    assert surprises == pytest.approx([0, 15.942], abs=1e-3)
    expected = sk.log_loss([0, 0], scores, labels=[0, 1])
    assert surprises.mean() == pytest.approx(expected, rel=1e-6)


def test_losses_stand_among_the_figures() -> None:
    actual, scores = _drawn(3)
    scored = Scored(tuple("abc"), actual, scores.astype(np.float32), [str(n) for n in actual])
    found = {(one.metric, one.category): one.value for one in classification_figures(scored, None)}
    assert found["brier", None] == pytest.approx(losses(actual, scores)[:, 0].mean(), rel=1e-6)
    assert found["nll", None] == pytest.approx(sk.log_loss(actual, scores), rel=1e-6)
    errors = class_calibration_errors(actual, scored.scores_NC)
    assert found["ece", None] == calibration_error(actual, scored.scores_NC)
    assert found["classwise_ece", "b"] == errors[1]
    assert found["classwise_ece", None] == pytest.approx(sum(errors) / 3)


@pytest.mark.parametrize("classes", [2, 4])
def test_calibration_error_equals_a_plain_loop(classes: int) -> None:
    actual, scores = _drawn(classes, seed=4)
    right = scores.argmax(axis=1) == actual
    expected = _looped_error(scores.max(axis=1).tolist(), right.tolist())
    assert calibration_error(actual, scores) == pytest.approx(expected)
    assert expected > 0.05
    for index, error in enumerate(class_calibration_errors(actual, scores)):
        truth = (actual == index).tolist()
        assert error == pytest.approx(_looped_error(scores[:, index].tolist(), truth))


@given(
    st.lists(
        st.tuples(
            st.one_of(st.floats(0, 1), st.sampled_from([place / 15 for place in range(16)])),
            st.booleans(),
        ),
        min_size=1,
    )
)
def test_claims_on_the_edge_of_a_bin(claims: list[tuple[float, bool]]) -> None:
    claimed, came_true = (list(column) for column in zip(*claims, strict=True))
    bins = Bins.of(np.asarray(claimed), np.asarray(came_true))
    assert bins.count_B.sum() == len(claims)
    assert len(bins.count_B) == BINS
    assert math.isclose(bins.error, _looped_error(claimed, came_true), abs_tol=1e-12)


def test_honest_claims_have_no_error() -> None:
    scores = np.asarray([[0.75, 0.25]] * 4)
    assert calibration_error(np.asarray([0, 0, 0, 1]), scores) == pytest.approx(0)
    assert calibration_error(np.asarray([1, 1, 1, 1]), scores) == pytest.approx(0.75)
