"""Tests between two models against slow definitions, published figures and resampling."""

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import accuracy_score, roc_auc_score

from schemas.bundle import OperatingPoint
from workers.metrics.bootstrap import Patients
from workers.metrics.classification import Scored
from workers.metrics.comparison import (
    Rival,
    compare_areas,
    comparison_figures,
    mcnemar,
)

Floats = NDArray[np.float64]


def _slow_delong(truth: NDArray[np.bool_], scores: Floats) -> tuple[Floats, Floats]:
    """AUCs and their covariance from all pairs: DeLong, DeLong and Clarke-Pearson (1988)."""
    pairs = []
    for one in scores:
        difference = np.sign(one[truth][:, None] - one[~truth][None, :])
        pairs.append((difference + 1) / 2)
    psi = np.stack(pairs)
    m, n = psi.shape[1:]
    return psi.mean(axis=(1, 2)), np.cov(psi.mean(axis=2)) / m + np.cov(psi.mean(axis=1)) / n


def _slow_obuchowski(truth: NDArray[np.bool_], scores: Floats, patients: list[int]) -> Floats:
    """The covariance of clustered AUCs as Obuchowski (1997) prints it, patient by patient."""
    positives, negatives = np.flatnonzero(truth), np.flatnonzero(~truth)
    m, n = len(positives), len(negatives)
    names = sorted(set(patients))
    patient = np.asarray(patients)
    residuals: list[tuple[list[float], list[float]]] = []
    for one in scores:
        psi = np.sign(one[positives][:, None] - one[negatives][None, :]) / 2 + 0.5
        auc = psi.mean()
        rows = [psi[patient[positives] == name].mean(axis=1) for name in names]
        columns = [psi[:, patient[negatives] == name].mean(axis=0) for name in names]
        residuals.append(
            (
                [row.sum() - len(row) * auc for row in rows],
                [column.sum() - len(column) * auc for column in columns],
            )
        )
    count = len(names)
    count_10, count_01 = len(set(patient[positives])), len(set(patient[negatives]))
    covariance = np.zeros((2, 2))
    for r, s in product(range(2), range(2)):
        (a_r, b_r), (a_s, b_s) = residuals[r], residuals[s]
        s10 = count_10 / ((count_10 - 1) * m) * np.dot(a_r, a_s)
        s01 = count_01 / ((count_01 - 1) * n) * np.dot(b_r, b_s)
        s11 = count / (count - 1) * np.dot(a_r, b_s)
        s11_back = count / (count - 1) * np.dot(a_s, b_r)
        covariance[r, s] = s10 / m + s01 / n + (s11 + s11_back) / (m * n)
    return covariance


def _sample(seed: int, count: int = 60) -> tuple[NDArray[np.bool_], Floats]:
    generator = np.random.default_rng(seed)
    truth = generator.random(count) < 0.4
    shared = generator.normal(size=count) + truth
    scores = shared + generator.normal(size=(2, count)) * [[0.5], [1.5]]
    return truth, np.round(scores, 1)


@pytest.mark.parametrize("seed", range(5))
def test_delong_equals_the_definition_over_all_pairs(seed: int) -> None:
    truth, scores = _sample(seed)
    areas = compare_areas(truth, scores)
    assert areas is not None
    aucs, covariance = _slow_delong(truth, scores)
    assert areas.auc_2 == pytest.approx(aucs)
    assert areas.auc_2 == pytest.approx([roc_auc_score(truth, one) for one in scores])
    assert areas.covariance_22 == pytest.approx(covariance)
    contrast = np.asarray([1, -1])
    z = contrast @ aucs / np.sqrt(contrast @ covariance @ contrast)
    assert areas.p == pytest.approx(2 * stats.norm.cdf(-abs(z)))
    assert 0 < areas.p < 1


@given(arrays(np.int64, st.tuples(st.integers(4, 25), st.just(3)), elements=st.integers(0, 4)))
def test_delong_with_ties_equals_the_definition(data: np.ndarray) -> None:
    truth, scores = data[:, 0] % 2 == 1, data[:, 1:].T.astype(float)
    areas = compare_areas(truth, scores)
    if min(truth.sum(), (~truth).sum()) < 2:
        assert areas is None
        return
    assert areas is not None
    aucs, covariance = _slow_delong(truth, scores)
    assert areas.auc_2 == pytest.approx(aucs)
    assert areas.covariance_22 == pytest.approx(covariance, abs=1e-12)
    assert 0 <= areas.p <= 1


@pytest.mark.parametrize("seed", range(3))
def test_delong_over_patients_equals_the_definition(seed: int) -> None:
    truth, scores = _sample(seed, count=40)
    patients = np.random.default_rng(seed).integers(0, 15, 40)
    areas = compare_areas(truth, scores, patients)
    assert areas is not None
    expected = _slow_obuchowski(truth, scores, patients.tolist())
    assert areas.covariance_22 == pytest.approx(expected)
    alone = compare_areas(truth, scores, np.arange(40))
    plain = compare_areas(truth, scores)
    assert alone is not None
    assert plain is not None
    assert alone.covariance_22 == pytest.approx(plain.covariance_22)


def test_repeated_images_of_a_patient_are_no_new_evidence() -> None:
    truth, scores = _sample(1, count=80)
    plain = compare_areas(truth, scores)
    repeated = compare_areas(np.repeat(truth, 5), np.repeat(scores, 5, axis=1))
    by_patient = compare_areas(
        np.repeat(truth, 5), np.repeat(scores, 5, axis=1), np.repeat(np.arange(80), 5)
    )
    assert plain is not None
    assert repeated is not None
    assert by_patient is not None
    assert by_patient.p == pytest.approx(plain.p)
    assert repeated.p < plain.p / 2


def test_models_that_rank_alike_do_not_differ() -> None:
    truth, scores = _sample(2)
    same = compare_areas(truth, np.stack([scores[0], scores[0] * 3 + 1]))
    assert same is not None
    assert same.p == 1
    perfect = compare_areas(truth, np.stack([truth.astype(float), np.zeros(len(truth))]))
    assert perfect is not None
    assert perfect.auc_2.tolist() == [1, 0.5]
    assert np.isnan(perfect.p)  # neither AUC varies, so nothing says how far 0.5 is


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 9), (12, 12), (2, 30)])
def test_mcnemar_is_the_exact_binomial(first: int, second: int) -> None:
    both, neither = 7, 5
    first_right = np.repeat([True, False, True, False], [first, second, both, neither])
    second_right = np.repeat([False, True, True, False], [first, second, both, neither])
    total = first + second
    tail = sum(comb(total, k) for k in range(min(first, second) + 1)) / 2**total
    assert mcnemar(first_right, second_right) == pytest.approx(min(2 * tail, 1))


def test_mcnemar_of_many_images_is_nearly_exact() -> None:
    first_right = np.repeat([True, False], [800, 900])
    exact = stats.binomtest(800, 1700).pvalue
    assert mcnemar(first_right, ~first_right) == pytest.approx(exact, rel=0.01)


def _pair(classes: int, count: int = 150) -> tuple[Scored, Rival]:
    generator = np.random.default_rng(classes)
    actual = generator.integers(0, classes, count)
    signal = generator.normal(size=(count, classes)) + 1.5 * np.eye(classes)[actual]

    def scores(noise: float) -> NDArray[np.float32]:
        raised = np.exp(signal + noise * generator.normal(size=signal.shape))
        return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)

    groups = [f"p{one}" for one in generator.integers(0, count // 3, count)]
    scored = Scored(tuple("abcd"[:classes]), actual, scores(0.2), groups)
    return scored, Rival("other@2", scores(2.0), None)


def test_differences_of_two_classes_and_their_intervals() -> None:
    scored, rival = _pair(2)
    point = OperatingPoint(positive="b", threshold=0.3, rule="youden")
    figures = comparison_figures(scored, point, rival, resamples=200, seed=5)
    found = {(one.metric, one.category): one for one in figures}
    assert set(found) == {
        (metric, "other@2")
        for metric in (
            "auc_difference",
            "accuracy_difference",
            "delong_p",
            "delong_patients_p",
            "mcnemar_p",
        )
    }
    truth, both = scored.actual_N, (scored.scores_NC, rival.scores_NC)
    aucs = [roc_auc_score(truth, one[:, 1]) for one in both]
    labels = [both[0][:, 1] >= 0.3, both[1].argmax(axis=1)]
    accuracies = [accuracy_score(truth, one) for one in labels]
    assert found["auc_difference", "other@2"].value == pytest.approx(aucs[0] - aucs[1])
    difference = found["accuracy_difference", "other@2"]
    assert difference.value == pytest.approx(accuracies[0] - accuracies[1])
    assert found["mcnemar_p", "other@2"].value == mcnemar(*(one == truth for one in labels))
    patients = Patients.of(scored.groups)
    drawn = np.concatenate(list(patients.draws(200, 5)), axis=1)[patients.index_N]
    gained = (labels[0] == truth).astype(int) - (labels[1] == truth)
    resampled = (gained @ drawn) / drawn.sum(axis=0)
    assert difference.interval == pytest.approx(np.percentile(resampled, [2.5, 97.5]))
    areas = [
        roc_auc_score(np.repeat(truth, row), np.repeat(both[0][:, 1], row))
        - roc_auc_score(np.repeat(truth, row), np.repeat(both[1][:, 1], row))
        for row in drawn.T.astype(int)
    ]
    interval = found["auc_difference", "other@2"].interval
    assert interval == pytest.approx(np.percentile(areas, [2.5, 97.5]))


def test_areas_compared_are_those_of_the_positive_class() -> None:
    generator = np.random.default_rng(6)
    actual = generator.integers(0, 2, 200)

    def scores(noise: float) -> NDArray[np.float32]:
        rare_N = 1 / (1 + np.exp(20 + noise * generator.normal(size=200) - 3 * actual))
        return np.stack([1 - rare_N, rare_N], axis=1).astype(np.float32)

    groups = [str(place // 2) for place in range(200)]
    scored, rival = Scored(("a", "b"), actual, scores(2.0), groups), scores(5.0)
    for place, positive in enumerate("ab"):
        point = OperatingPoint(positive=positive, threshold=0.5, rule="f1")
        figures = comparison_figures(scored, point, Rival("other@2", rival, None))
        found = {one.metric: one.value for one in figures}
        areas = [roc_auc_score(actual == place, one[:, place]) for one in (scored.scores_NC, rival)]
        assert found["auc_difference"] == pytest.approx(areas[0] - areas[1], abs=1e-12)


def test_a_difference_without_any_spread_has_no_p() -> None:
    actual = np.arange(8) % 2
    perfect = np.eye(2, dtype=np.float32)[actual]
    blind = Rival("other@2", np.full((8, 2), 0.5, np.float32), None)
    scored = Scored(("a", "b"), actual, perfect, list("stuvwxyz"))
    found = {one.metric for one in comparison_figures(scored, None, blind)}
    assert found == {"auc_difference", "accuracy_difference", "mcnemar_p"}


def test_three_classes_are_compared_one_against_the_rest() -> None:
    scored, rival = _pair(3)
    found = {(one.metric, one.category): one for one in comparison_figures(scored, None, rival)}
    differences = []
    for index, name in enumerate("abc"):
        truth = scored.actual_N == index
        areas = compare_areas(
            truth, np.stack([scored.scores_NC[:, index], rival.scores_NC[:, index]])
        )
        assert areas is not None
        assert found["delong_p", f"other@2|{name}"].value == areas.p
        one = found["auc_difference", f"other@2|{name}"]
        assert one.value == pytest.approx(areas.auc_2[0] - areas.auc_2[1])
        assert one.interval is None
        differences.append(one.value)
    assert found["auc_difference", "other@2"].value == pytest.approx(np.mean(differences))
    assert ("delong_p", "other@2") not in found


def test_without_a_class_only_labels_are_compared() -> None:
    scored = Scored(
        ("a", "b"), np.zeros(3, np.int64), np.eye(2, dtype=np.float32)[[0, 0, 1]], "xyz"
    )
    rival = Rival("other@2", np.eye(2, dtype=np.float32)[[0, 1, 1]], None)
    found = {one.metric: one.value for one in comparison_figures(scored, None, rival, resamples=9)}
    assert found == {"accuracy_difference": pytest.approx(1 / 3), "mcnemar_p": 1}
