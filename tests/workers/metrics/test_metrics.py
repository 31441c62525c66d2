"""Figures of merit against scikit-learn, and intervals against plain resampling."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn import metrics as sk

from schemas.bundle import OperatingPoint
from workers.metrics.bootstrap import interval, patient_weights
from workers.metrics.classification import Figure, Scored, classification_figures
from workers.metrics.scores import macro_auc, weighted_aucs
from workers.metrics.thresholds import choose_point


def _scored(classes: int, count: int = 400, seed: int = 0) -> Scored:
    generator = np.random.default_rng(seed)
    actual = generator.integers(0, classes, count)
    logits = generator.normal(size=(count, classes)) + 1.2 * np.eye(classes)[actual]
    # Rounded so that ties occur.
    scores = np.round(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), 2)
    groups = [f"p{generator.integers(0, count // 3)}" for _ in range(count)]
    names = tuple("abcd"[:classes])
    return Scored(names, actual.astype(np.int64), scores.astype(np.float32), groups)


def _by_key(figures: list[Figure]) -> dict[tuple[str, str | None], Figure]:
    return {(figure.metric, figure.category): figure for figure in figures}


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_figures_equal_scikit_learn(classes: int) -> None:
    scored = _scored(classes)
    found = _by_key(classification_figures(scored, None))
    labels = scored.scores_NC.argmax(axis=1)
    actual = scored.actual_N
    assert found["accuracy", None].value == pytest.approx(sk.accuracy_score(actual, labels))
    compute = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}
    for metric, function in compute.items():
        expected = function(actual, labels, average=None)
        for name, value in zip(scored.classes, expected, strict=True):
            assert found[metric, name].value == pytest.approx(value), (metric, name)
        assert found[metric, None].value == pytest.approx(np.mean(expected))
    counts = sk.confusion_matrix(actual, labels)
    for row, truth in enumerate(scored.classes):
        for column, label in enumerate(scored.classes):
            assert found["confusion", f"{truth}|{label}"].value == counts[row, column]
    judged = [1] if classes == 2 else range(classes)
    aucs = [sk.roc_auc_score(actual == c, scored.scores_NC[:, c]) for c in judged]
    assert found["auc", None].value == pytest.approx(np.mean(aucs))


def test_operating_point_moves_labels_and_gives_sensitivity() -> None:
    scored = _scored(2)
    point = OperatingPoint(positive="a", threshold=0.3, rule="youden")
    found = _by_key(classification_figures(scored, point))
    chosen = scored.scores_NC[:, 0].astype(float) >= 0.3
    truth = scored.actual_N == 0
    assert found["sensitivity", "a"].value == pytest.approx(sk.recall_score(truth, chosen))
    assert found["specificity", "a"].value == pytest.approx(sk.recall_score(~truth, ~chosen))
    assert found["accuracy", None].value == pytest.approx(np.mean(truth == chosen))
    assert found["threshold", "a"].value == 0.3


def test_figures_without_meaning_are_left_out() -> None:
    one_sided = Scored(("a", "b"), np.zeros(5, np.int64), np.full((5, 2), 0.5, np.float32), "vwxyz")
    found = _by_key(classification_figures(one_sided, None, resamples=20))
    assert ("auc", None) not in found
    assert found["recall", "b"].value == 0


def test_macro_auc_of_a_missing_class_is_undefined() -> None:
    assert np.isnan(macro_auc(np.array([0, 1, 0]), np.eye(3)))


def test_weighted_auc_equals_auc_of_repeated_images() -> None:
    generator = np.random.default_rng(3)
    positive = generator.random(60) < 0.4
    scores = np.round(generator.random(60) + 0.3 * positive, 1)
    weights = generator.integers(0, 4, (25, 60))
    found = weighted_aucs(positive, scores, weights.astype(float))
    expected = [
        sk.roc_auc_score(np.repeat(positive, row), np.repeat(scores, row)) for row in weights
    ]
    assert_allclose(found, expected, rtol=1e-12)


def test_weighted_auc_without_negatives_is_undefined() -> None:
    found = weighted_aucs(np.array([True, False]), np.array([0.1, 0.2]), np.array([[1.0, 0.0]]))
    assert np.isnan(found).all()


def test_patients_are_drawn_whole_and_seeded() -> None:
    groups = ["p", "q", "p", "r", "q", "s"]
    weights = np.concatenate(list(patient_weights(groups, 50, seed=7)))
    assert weights.shape == (50, 6)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3, 5]].sum(axis=1) == 4).all()
    again = np.concatenate(list(patient_weights(groups, 50, seed=7)))
    assert (weights == again).all()
    assert (weights != np.concatenate(list(patient_weights(groups, 50, seed=8)))).any()


def test_interval_equals_that_of_plain_resampling() -> None:
    scored = _scored(2, count=150, seed=5)
    figures = _by_key(classification_figures(scored, None, resamples=300, seed=11))
    groups = np.asarray(scored.groups)
    labels = scored.scores_NC.argmax(axis=1)
    accuracies, aucs = [], []
    for row in np.concatenate(list(patient_weights(scored.groups, 300, seed=11))):
        names, first = np.unique(groups, return_index=True)
        drawn = np.repeat(names, row[first].astype(int))
        picked = np.concatenate([np.flatnonzero(groups == name) for name in drawn])
        accuracies.append(np.mean(scored.actual_N[picked] == labels[picked]))
        aucs.append(sk.roc_auc_score(scored.actual_N[picked], scored.scores_NC[picked, 1]))
    assert_allclose(figures["accuracy", None].interval, np.percentile(accuracies, [2.5, 97.5]))
    assert_allclose(figures["auc", None].interval, np.percentile(aucs, [2.5, 97.5]))


def test_interval_of_nothing_is_none() -> None:
    assert interval(np.array([np.nan, np.nan])) is None


def test_images_of_one_patient_widen_the_interval() -> None:
    generator = np.random.default_rng(0)
    right = np.repeat(generator.random(30) < 0.7, 10)
    actual = np.zeros(300, np.int64)
    scores = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9]).astype(np.float32)
    apart = Scored(("a", "b"), actual, scores, [str(i) for i in range(300)])
    together = Scored(("a", "b"), actual, scores, [str(i // 10) for i in range(300)])
    widths = []
    for scored in (apart, together):
        figure = _by_key(classification_figures(scored, None, resamples=500))["accuracy", None]
        assert figure.interval is not None
        widths.append(figure.interval[1] - figure.interval[0])
    assert widths[1] > 2 * widths[0]


@pytest.mark.parametrize("rule", ["youden", "f1"])
def test_chosen_threshold_is_the_best_of_all(rule: str) -> None:
    scored = _scored(2, seed=9)
    point = choose_point(scored.actual_N, scored.scores_NC, ("a", "b"), "b", rule)  # type: ignore[arg-type]
    scores = scored.scores_NC[:, 1].astype(float)
    truth = scored.actual_N == 1

    def worth(threshold: float) -> float:
        chosen = scores >= threshold
        if rule == "f1":
            return float(sk.f1_score(truth, chosen))
        return float(sk.recall_score(truth, chosen) + sk.recall_score(~truth, ~chosen))

    every = [worth(threshold) for threshold in np.unique(scores)]
    assert worth(point.threshold) == pytest.approx(max(every))
    assert np.abs(scores - point.threshold).min() > 1e-3


def test_threshold_needs_both_classes() -> None:
    with pytest.raises(ValueError, match="both classes"):
        choose_point(np.zeros(3, np.int64), np.eye(3, 2), ("a", "b"), "b")
