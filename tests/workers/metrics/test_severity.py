"""Figures of severity against scikit-learn, by hand, and against the printed study's bounds."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk

from workers.metrics.classification import Scored, classification_figures
from workers.metrics.severity import (
    Severity,
    custom_precision,
    expected_cost,
    quadratic_kappa,
    severity_values,
    under_triage,
)

MATRICES = arrays(np.int64, (3, 3), elements=st.integers(0, 12))
HAND_WEIGHTS = ((1, 1, 1), (1.5, 1, 1), (2, 1.2, 1))
"""Weights of false positives of the hand study, predicted class by row; see docs/severity.md."""


def _labels(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels that make a confusion matrix: actual, predicted."""
    actual, predicted = np.indices(counts.shape)
    return np.repeat(actual, counts.ravel()), np.repeat(predicted, counts.ravel())


@given(MATRICES)
def test_kappa_and_cost_equal_scikit_learn_and_a_loop(counts: np.ndarray) -> None:
    assume(counts.sum() > 0)
    actual, predicted = _labels(counts)
    cost = expected_cost(counts.astype(float), np.abs(np.subtract.outer(range(3), range(3))))
    assert cost == pytest.approx(np.mean(np.abs(actual - predicted)))
    ours = quadratic_kappa(counts.astype(float))
    if len(set(actual) | set(predicted)) < 2:
        assert np.isnan(ours)
        return
    theirs = sk.cohen_kappa_score(actual, predicted, labels=[0, 1, 2], weights="quadratic")
    assert ours == pytest.approx(theirs)


@given(MATRICES)
def test_unweighted_custom_precision_is_macro_precision(counts: np.ndarray) -> None:
    assume(counts.sum() > 0)
    actual, predicted = _labels(counts)
    ours = custom_precision(counts.astype(float), np.ones((3, 3)))
    theirs = sk.precision_score(actual, predicted, average="macro", zero_division=0)
    assert ours == pytest.approx(theirs)


@given(MATRICES)
def test_weighted_custom_precision_by_the_letter(counts: np.ndarray) -> None:
    """The printed formula, term by term: N, then H, then R."""
    assume((np.diagonal(counts) > 0).all())
    (n, n_h, n_r), (h_n, h, h_r), (r_n, r_h, r) = counts
    expected = (n / (n + h_n + r_n) + h / (h + n_h * 1.5 + r_h) + r / (r + n_r * 2 + h_r * 1.2)) / 3
    ours = custom_precision(counts.astype(float), np.asarray(HAND_WEIGHTS))
    assert ours == pytest.approx(expected)


def test_under_triage_of_any_number_of_classes() -> None:
    counts = np.asarray([[5, 1, 0, 0], [2, 6, 2, 0], [1, 2, 7, 0], [0, 3, 1, 16]], float)
    assert under_triage(counts).tolist() == pytest.approx([0.2, 0.3, 0.2])
    assert np.isnan(under_triage(np.asarray([[1.0, 0], [0, 0]]))).all()


def test_order_of_severity_need_not_be_the_models() -> None:
    counts = np.asarray([[[6, 0, 0], [4, 4, 1], [3, 3, 3]]] * 2, float)
    names = ("normal", "heberden", "arthritis")
    shuffled = [2, 0, 1]
    moved = counts[:, shuffled][:, :, shuffled]
    moved_names = [names[index] for index in shuffled]
    costs = ((0, 1, 5), (2, 0, 1), (9, 3, 0))
    plain = severity_values(counts, names, Severity.of(names, names, costs, HAND_WEIGHTS))
    found = severity_values(
        moved, moved_names, Severity.of(moved_names, names, costs, HAND_WEIGHTS)
    )
    assert plain.keys() == found.keys()
    for key, value in plain.items():
        assert found[key].shape == (2,)
        assert found[key] == pytest.approx(value), key
    assert found["expected_cost", None][0] == pytest.approx((4 * 2 + 1 + 3 * 9 + 3 * 3) / 24)


def test_severity_stands_among_the_figures_with_intervals() -> None:
    counts = np.asarray([[6, 0, 0], [4, 4, 1], [3, 3, 3]])
    actual, predicted = _labels(counts)
    scored = Scored(
        tuple("NHR"), actual, np.eye(3, dtype=np.float32)[predicted], [str(n) for n in range(24)]
    )
    severity = Severity.of("NHR", "NHR", (), HAND_WEIGHTS)
    figures = classification_figures(scored, None, severity=severity, resamples=100)
    found = {(one.metric, one.category): one for one in figures}
    assert found["under_triage", "H"].value == pytest.approx(4 / 9)
    assert found["under_triage", "H|N"].value == pytest.approx(4 / 9)
    assert found["under_triage", "R"].value == pytest.approx(6 / 9)
    assert found["under_triage", "R|N"].value == pytest.approx(3 / 9)
    assert found["under_triage", "R|H"].value == pytest.approx(3 / 9)
    assert ("under_triage", "N") not in found
    assert found["expected_cost", None].value == pytest.approx((4 + 1 + 3 * 2 + 3) / 24)
    low, high = found["custom_plus", None].interval or (0, 0)
    assert low < 10 / 9 < high


def test_without_a_diseased_class_only_its_own_figures_are_left_out() -> None:
    actual, predicted = _labels(np.asarray([[6, 1, 0], [2, 4, 0], [0, 0, 0]]))
    scored = Scored(
        tuple("NHR"), actual, np.eye(3, dtype=np.float32)[predicted], [str(n) for n in actual]
    )
    figures = classification_figures(scored, None, severity=Severity.of("NHR", "NHR"))
    found = {(one.metric, one.category): one.value for one in figures}
    assert found["under_triage", "H"] == pytest.approx(1 / 3)
    assert ("under_triage", "R") not in found
    assert ("custom_plus", None) not in found
    assert found["custom_precision", None] == pytest.approx((6 / 8 + 4 / 5) / 2)
