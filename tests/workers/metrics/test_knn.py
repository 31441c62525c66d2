"""Nearest neighbours and paired gains, against sums done here."""

import numpy as np
import pytest

from workers.metrics.knn import compare_predictions, nearest_class


def test_most_of_the_nearest_by_angle_decide() -> None:
    random = np.random.default_rng(0)
    known, asked = random.normal(size=(40, 5)), random.normal(size=(25, 5))
    # Lengths say nothing: the angle counts.
    known *= random.uniform(0.1, 10, size=(40, 1))
    targets = random.integers(0, 3, 40)
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (known, asked)]
    nearest = np.argsort(-unit[1] @ unit[0].T, axis=1)[:, :7]
    votes = np.stack([np.bincount(targets[row], minlength=3) for row in nearest])
    np.testing.assert_array_equal(nearest_class(known, targets, asked, 7), votes.argmax(axis=1))


def test_there_are_no_more_neighbours_than_images() -> None:
    known, targets = np.eye(3), np.array([1, 1, 0])
    assert nearest_class(known, targets, np.eye(3)[2:], 50).tolist() == [1]


ACTUAL = np.array([0, 0, 0, 0, 0, 0, 1, 1])
FIRST = np.array([0, 0, 0, 0, 0, 1, 1, 0])
SECOND = np.array([0, 0, 0, 0, 0, 0, 0, 0])
GROUPS = ["a", "a", "b", "c", "c", "d", "e", "f"]


def test_a_gain_is_what_the_first_has_right_beyond_the_second() -> None:
    found = compare_predictions(ACTUAL, {"learned": FIRST, "random": SECOND}, GROUPS)
    assert found["learned_accuracy"] == found["random_accuracy"] == 6 / 8
    assert found["gain_accuracy"] == 0
    assert found["learned_balanced"] == pytest.approx((5 / 6 + 1 / 2) / 2, abs=1e-6)
    assert found["random_balanced"] == 0.5
    assert found["gain_balanced"] == pytest.approx(5 / 12 + 1 / 4 - 1 / 2, abs=1e-6)


def test_of_a_single_patient_no_interval_is_told() -> None:
    """Nothing is known of how patients differ: [v, v] would look like certainty."""
    predicted = {"learned": FIRST, "random": SECOND}
    found = compare_predictions(ACTUAL, predicted, ["a"] * 8)
    assert found["learned_accuracy"] == 6 / 8
    assert not [name for name in found if name.endswith("95%")]


def test_intervals_are_paired_and_of_patients() -> None:
    random = np.random.default_rng(5)
    actual = random.integers(0, 2, 90)
    first = np.where(random.random(90) < 0.8, actual, 1 - actual)
    second = np.where(random.random(90) < 0.6, first, 1 - actual)
    names = np.array([f"p{number // 3}" for number in range(90)])
    predicted = {"learned": first, "random": second}
    found = compare_predictions(actual, predicted, names.tolist(), resamples=4000)
    gains = []
    for _ in range(4000):
        drawn = random.choice(np.unique(names), 30)
        rows = np.concatenate([np.flatnonzero(names == one) for one in drawn])
        gains.append(np.mean((first == actual)[rows].astype(int) - (second == actual)[rows]))
    expected = np.percentile(gains, [2.5, 97.5])
    np.testing.assert_allclose(found["gain_accuracy 95%"], expected, atol=0.02)
    same = compare_predictions(actual, {"learned": first, "random": first}, names.tolist())
    assert same["gain_accuracy 95%"] == same["gain_balanced 95%"] == [0, 0]
