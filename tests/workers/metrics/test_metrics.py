"""Figures of merit against scikit-learn, and intervals against plain resampling."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from sklearn import metrics as sk

from schemas.bundle import OperatingPoint
from workers.figures.curves import judged_classes
from workers.metrics import bootstrap
from workers.metrics.bootstrap import Patients, interval
from workers.metrics.classification import Figure, Scored, classification_figures
from workers.metrics.scores import Ranking, macro_auc
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
    precisions = []
    for index, name in enumerate(scored.classes):
        truth, called = actual == index, labels == index
        score = sk.average_precision_score(truth, scored.scores_NC[:, index])
        assert found["average_precision", name].value == pytest.approx(score)
        precisions.append(score)
        if classes > 2:
            assert found["auc", name].value == pytest.approx(aucs[index])
            expected = sk.recall_score(~truth, ~called)
            assert found["specificity", name].value == pytest.approx(expected)
    assert found["average_precision", None].value == pytest.approx(np.mean(precisions))
    balanced = sk.balanced_accuracy_score(actual, labels)
    assert found["balanced_accuracy", None].value == pytest.approx(balanced)
    assert found["recall", None].value == pytest.approx(balanced)


@pytest.mark.parametrize("positive", [None, "a", "b"])
def test_auc_of_two_classes_is_that_of_the_positive_one(positive: str | None) -> None:
    """In float32, certain scores round to 1 alike, so that the two classes' AUCs differ."""
    generator = np.random.default_rng(4)
    actual = generator.integers(0, 2, 300)
    rare_N = 1 / (1 + np.exp(24 + 3 * generator.normal(size=300) - 3 * actual))
    scores = np.stack([1 - rare_N, rare_N], axis=1).astype(np.float32)
    point = OperatingPoint(positive=positive, threshold=0.5, rule="f1") if positive else None
    scored = Scored(("a", "b"), actual, scores, [str(i) for i in range(300)])
    place = 0 if positive == "a" else 1
    areas = [sk.roc_auc_score(actual == c, scores[:, c]) for c in (0, 1)]
    assert abs(areas[0] - areas[1]) > 0.01
    figure = _by_key(classification_figures(scored, point, resamples=50))["auc", None]
    assert figure.value == pytest.approx(areas[place], abs=1e-12)
    assert figure.interval is not None
    assert figure.interval[0] < areas[place] < figure.interval[1]
    assert macro_auc(actual, scores) == pytest.approx(areas[1], abs=1e-12)
    ((name, truth_N, scores_N),) = judged_classes(scored, point)
    assert (name, sk.roc_auc_score(truth_N, scores_N)) == ("ab"[place], areas[place])


def test_auc_of_more_classes_is_scikit_learns_one_vs_rest() -> None:
    scored = _scored(4)
    scores = scored.scores_NC / scored.scores_NC.sum(axis=1, keepdims=True)
    expected = sk.roc_auc_score(scored.actual_N, scores, multi_class="ovr", average="macro")
    scored = Scored(scored.classes, scored.actual_N, scores, scored.groups)
    found = _by_key(classification_figures(scored, None))["auc", None].value
    assert found == pytest.approx(expected, abs=1e-12)
    assert macro_auc(scored.actual_N, scores) == pytest.approx(expected, abs=1e-12)


def test_one_patient_gives_values_without_intervals() -> None:
    scored = _scored(2)
    alone = Scored(scored.classes, scored.actual_N, scored.scores_NC, ["p"] * len(scored))
    found = classification_figures(alone, None, resamples=20)
    assert {one.metric for one in found} > {"auc", "accuracy"}
    assert {one.interval for one in found} == {None}


def test_every_metric_with_an_interval_has_it_around_its_value() -> None:
    found = classification_figures(_scored(3), None, resamples=200)
    without = {figure.metric for figure in found if figure.interval is None}
    assert without == {"ece", "classwise_ece", "confusion"}
    for figure in found:
        if figure.interval is not None:
            assert figure.interval[0] <= figure.value <= figure.interval[1], figure
            assert figure.interval[0] < figure.interval[1], figure


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
    assert not {"auc", "average_precision"} & {metric for metric, _ in found}
    # Nothing has the class: that none of it is found says nothing of the model.
    assert ("recall", "b") not in found
    assert ("precision", "b") not in found
    assert found["recall", None].value == found["balanced_accuracy", None].value == 1
    assert found["accuracy", None].interval == (1, 1)


def test_a_class_that_is_only_predicted_has_precision_0() -> None:
    scores = np.asarray([[0.9, 0.1], [0.2, 0.8]], np.float32)
    found = _by_key(
        classification_figures(Scored(("a", "b"), np.zeros(2, np.int64), scores, "vw"), None)
    )
    assert (found["precision", "b"].value, found["f1", "b"].value) == (0, 0)
    assert found["precision", None].value == 0.5
    assert found["recall", None].value == found["recall", "a"].value == 0.5


def test_macro_auc_of_a_missing_class_is_undefined() -> None:
    assert np.isnan(macro_auc(np.array([0, 1, 0]), np.eye(3)))


@given(
    data=arrays(np.int64, st.tuples(st.integers(2, 40), st.just(3)), elements=st.integers(0, 5)),
)
def test_areas_of_resamples_equal_those_of_repeated_images(data: np.ndarray) -> None:
    """Columns: class (even or odd), score (many ties), how often the image's patient was drawn."""
    positive, scores, counts = data[:, 0] % 2 == 1, data[:, 1] / 5, data[:, 2]
    patients = Patients(np.arange(len(data)), len(data))
    ranking = Ranking.of(positive, scores, patients)
    (auc,), (precision,) = ranking.areas(counts[:, None].astype(float))
    truth, repeated = np.repeat(positive, counts), np.repeat(scores, counts)
    if truth.all() or not truth.any():
        assert np.isnan(auc)
        assert np.isnan(precision)
        return
    assert auc == pytest.approx(sk.roc_auc_score(truth, repeated))
    assert precision == pytest.approx(sk.average_precision_score(truth, repeated))


def test_many_resamples_are_each_computed_alone() -> None:
    generator = np.random.default_rng(3)
    positive = generator.random(60) < 0.4
    scores = np.round(generator.random(60) + 0.3 * positive, 1)
    index = generator.integers(0, 20, 60)
    drawn = generator.integers(0, 4, (20, 25)).astype(float)
    aucs, precisions = Ranking.of(positive, scores, Patients(index, 20)).areas(drawn)
    for place, counts in enumerate(drawn.T.astype(int)):
        truth, repeated = (np.repeat(one, counts[index]) for one in (positive, scores))
        assert aucs[place] == pytest.approx(sk.roc_auc_score(truth, repeated))
        assert precisions[place] == pytest.approx(sk.average_precision_score(truth, repeated))


def _weights(groups: Sequence[str], resamples: int, seed: int) -> np.ndarray:
    """How often each image counts: (resamples, images)."""
    patients = Patients.of(groups)
    drawn = np.concatenate(list(patients.draws(resamples, seed)), axis=1)
    return drawn.T[:, patients.index_N]


def test_patients_are_drawn_whole_and_seeded() -> None:
    groups = ["p", "q", "p", "r", "q", "s"]
    weights = _weights(groups, 50, seed=7)
    assert weights.shape == (50, 6)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3, 5]].sum(axis=1) == 4).all()
    assert (weights == _weights(groups, 50, seed=7)).all()
    assert (weights != _weights(groups, 50, seed=8)).any()


def test_chunks_of_resamples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scored = _scored(3, count=90)
    whole = classification_figures(scored, None, resamples=40, seed=2)
    monkeypatch.setattr(bootstrap, "CHUNK_VALUES", 90 * 7)
    assert len(list(Patients.of(scored.groups).draws(40, 2))) == 6
    assert classification_figures(scored, None, resamples=40, seed=2) == whole


def test_interval_equals_that_of_plain_resampling() -> None:
    scored = _scored(2, count=150, seed=5)
    figures = _by_key(classification_figures(scored, None, resamples=300, seed=11))
    groups = np.asarray(scored.groups)
    labels = scored.scores_NC.argmax(axis=1)
    accuracies, aucs = [], []
    for row in _weights(scored.groups, 300, seed=11):
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
