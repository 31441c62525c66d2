"""How far scores moved, against SciPy and against figures worked out by hand."""

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy import stats

from workers.metrics.drift import measure_drift, population_stability_index

CLASSIFIER: dict[str, Any] = {"family": "classifier", "operating_point": None, "metrics": "{}"}
TWO: dict[str, Any] = CLASSIFIER | {
    "classes": ["ill", "well"],
    "operating_point": json.dumps({"positive": "ill", "threshold": 0.25, "rule": "youden"}),
}


def table(scores_NC: NDArray[np.float64]) -> pa.Table:
    lists = pa.array(scores_NC.tolist(), pa.list_(pa.float32()))
    half = len(lists) // 2  # as a query hands it over: in several chunks
    return pa.table({"scores": pa.chunked_array([lists[:half], lists[half:]])})


def two_classes(ill_N: NDArray[np.float64]) -> pa.Table:
    return table(np.stack([ill_N, 1 - ill_N], axis=1))


def test_the_index_is_that_of_the_formula() -> None:
    reference = np.arange(100) / 100  # ten in each tenth
    scores = np.concatenate([np.full(30, 0.05), np.full(10, 0.95)])
    p = [30.5 / 45, *([0.5 / 45] * 8), 10.5 / 45]
    q = 10.5 / 105
    expected = sum((one - q) * math.log(one / q) for one in p)
    found = population_stability_index(scores, reference)
    assert found.value == pytest.approx(expected)
    assert found.p_value == pytest.approx(stats.chi2.sf(expected / (1 / 40 + 1 / 100), df=9))


def test_the_index_of_the_reference_itself_is_zero() -> None:
    reference = np.random.default_rng(0).random(500)
    found = population_stability_index(reference, reference)
    assert (found.value, found.p_value) == (pytest.approx(0, abs=1e-12), pytest.approx(1))


def test_equal_tenths_make_one_bin() -> None:
    """A model that is sure of nearly all images has one value for most of its reference."""
    reference = np.concatenate([np.zeros(80), np.ones(20)])
    scores = np.concatenate([np.zeros(40), np.ones(60)])
    p, q = np.array([40.5, 0, 60.5]), np.array([80.5, 0, 20.5])
    found = population_stability_index(scores, reference).value
    assert 0.6 < found < 0.8
    bare = sum((a - b) / 100 * math.log(a / b) for a, b in zip(p, q, strict=True) if a and b)
    assert found == pytest.approx(bare, rel=0.05)


def test_between_samples_of_one_distribution_it_is_what_chance_makes() -> None:
    generator = np.random.default_rng(3)
    found = [
        population_stability_index(generator.random(100), generator.random(400)) for _ in range(400)
    ]
    mean = np.mean([one.value for one in found])
    assert mean == pytest.approx(9 * (1 / 100 + 1 / 400), rel=0.15)
    rare = np.mean([one.p_value < 0.05 for one in found])
    assert 0.01 < rare < 0.09, "about one in twenty by chance"


def test_the_gap_is_that_of_scipy() -> None:
    generator = np.random.default_rng(1)
    now, before = generator.beta(2, 3, 60), generator.beta(2, 2, 300)
    found = measure_drift(two_classes(now), two_classes(before), TWO)
    expected = stats.ks_2samp(now.astype(np.float32), before.astype(np.float32))
    assert found["ks"][0]["value"] == pytest.approx(expected.statistic)
    assert found["ks"][0]["p_value"] == pytest.approx(expected.pvalue)
    assert [one["of"] for one in found["ks"] + found["psi"]] == ["ill", "ill"]


def test_shares_are_those_of_labels_at_the_operating_point() -> None:
    now, before = np.array([0.3, 0.3, 0.2, 0.9]), np.array([0.1, 0.1, 0.24, 0.25])
    (found,) = measure_drift(two_classes(now), two_classes(before), TWO)["class_share"]
    assert (found["now"], found["before"], found["value"]) == (0.75, 0.25, 0.5)
    assert found["p_value"] == pytest.approx(34 / 70)  # of 70 tables of these margins
    likeliest = {**TWO, "operating_point": None}
    (found,) = measure_drift(two_classes(now), two_classes(before), likeliest)["class_share"]
    assert (found["of"], found["now"], found["before"]) == ("well", 0.75, 1.0)


def test_every_class_is_measured_and_the_one_that_moved_most_comes_first() -> None:
    generator = np.random.default_rng(2)
    before = generator.dirichlet([5, 5, 5], 400)
    now = generator.dirichlet([5, 5, 12], 100)
    model = CLASSIFIER | {"classes": ["a", "b", "c"]}
    found = measure_drift(table(now), table(before), model)
    gaps = [stats.ks_2samp(now[:, k], before[:, k]).statistic for k in range(3)]
    assert np.argmax(gaps) == 2
    assert {found[name][0]["of"] for name in ("psi", "ks", "class_share")} == {"c"}
    assert {one["of"] for one in found["class_share"]} == {"a", "b", "c"}
    measured = [one["value"] for one in found["ks"]]
    assert measured == pytest.approx(sorted(gaps, reverse=True), abs=1e-6)


def test_one_anomaly_score_has_no_labels() -> None:
    model = CLASSIFIER | {"classes": []}
    now, before = np.full((20, 1), 3.0), np.linspace(0, 1, 50)[:, None]
    found = measure_drift(table(now), table(before), model)
    assert found["ks"] == [{"value": 1.0, "of": "score", "p_value": pytest.approx(0, abs=1e-9)}]
    assert "class_share" not in found


def detector(*classes: str, confidence: float = 0.3) -> dict[str, Any]:
    return {
        "family": "centernet",
        "classes": list(classes),
        "operating_point": None,
        "metrics": json.dumps({"ap50": 0.7, "threshold": confidence}),
    }


def test_a_detector_that_finds_nothing_any_more_has_changed() -> None:
    """Half of the images had a cyst; now none has one that reaches the operating point."""
    before = np.array([[0.9], [0.0], [0.3], [0.29]] * 20, np.float32)
    now = np.array([[0.0], [0.29], [0.1], [0.0]] * 10, np.float32)
    (found,) = measure_drift(table(now), table(before), detector("cyst"))["class_share"]
    assert (found["of"], found["before"], found["now"], found["value"]) == ("cyst", 0.5, 0, 0.5)
    expected = stats.fisher_exact([[0, 40], [40, 40]]).pvalue
    assert found["p_value"] == pytest.approx(expected)


def test_what_a_detector_did_not_find_has_a_share_of_its_own() -> None:
    before = np.array([[0.0, 0.0, 0.0]] * 20)
    now = np.array([[0.9, 0.2, 0.5]] * 15 + [[0.1, 0.2, 0.29]] * 5)
    found = measure_drift(table(now), table(before), detector("cyst", "HCC", "none"))["class_share"]
    shares = {(one["of"], one["before"], one["now"]) for one in found}
    assert shares == {("cyst", 0, 0.75), ("HCC", 0, 0), ("none", 0, 0), ("none", 1, 0.25)}
    assert [one["value"] for one in found[:2]] == [0.75, 0.75]


def test_confidences_of_two_classes_do_not_add_up_to_one() -> None:
    generator = np.random.default_rng(6)
    before, now = generator.random((300, 2)), generator.random((100, 2))
    now[:, 0] /= 2
    found = measure_drift(table(now), table(before), detector("cyst", "HCC"))
    assert [one["of"] for one in found["ks"]] == ["cyst", "HCC"]
    assert {one["of"] for one in found["psi"]} == {"cyst", "HCC"}
    assert {one["of"] for one in found["class_share"]} == {"cyst", "HCC", "none"}


def test_a_move_to_below_a_tied_lowest_tenth_shows() -> None:
    generator = np.random.default_rng(1)
    tied = generator.random(2000) < 0.3
    reference = np.where(tied, 0.1, 0.1 + 0.9 * generator.random(2000))
    found = population_stability_index(np.where(tied, 1e-4, reference), reference)
    # 30 % leave the bin of 0.1 for one in which nothing lay; all shares with half an image more.
    n, bins = tied.sum(), 9  # up to 0.1, 0.1 itself, and seven tenths above
    low, high = 0.5 / (2000 + bins / 2), (n + 0.5) / (2000 + bins / 2)
    assert found.value == pytest.approx(2 * (high - low) * math.log(high / low), rel=1e-3)
    assert found.p_value < 1e-9


def test_what_has_one_value_only_is_stable() -> None:
    found = population_stability_index(np.full(60, 0.5), np.full(300, 0.5))
    assert (found.value, found.p_value) == (0, 1)


def test_scores_that_are_no_numbers_make_no_figure() -> None:
    generator = np.random.default_rng(4)
    now, before = generator.random(50), generator.random(100)
    now[7] = np.nan
    found = measure_drift(two_classes(now), two_classes(before), TWO)
    assert math.isnan(found["psi"][0]["value"])
    assert math.isnan(found["ks"][0]["value"])
