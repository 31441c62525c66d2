"""Weights of classes, and draws in which classes come equally often."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from workers.training.sampling import balanced_order, class_weights

TARGETS = np.array([0] * 60 + [1] * 25 + [2] * 5)[np.random.default_rng(0).permutation(90)]


def test_weights_equal_scikit_learn() -> None:
    expected = compute_class_weight("balanced", classes=np.arange(3), y=TARGETS)
    assert class_weights(TARGETS, 3) == pytest.approx(expected)
    assert np.isfinite(class_weights(TARGETS, 4)).all()


@pytest.mark.parametrize("count", [88, 90, 3, 2])
def test_classes_come_equally_often(count: int) -> None:
    order = balanced_order(TARGETS, count, epoch=1, rank=0, seed=4)
    assert len(order) == count
    classes = np.bincount(TARGETS[order], minlength=3)
    assert classes.max() - classes.min() <= 1
    times = np.bincount(order, minlength=90)
    assert times[TARGETS == 0].max(initial=0) <= 1
    for target in range(3):
        of_class = times[target == TARGETS]
        assert of_class.max() - of_class.min() <= 1
    if count == 90:
        assert (times[TARGETS == 2] == 6).all()


def test_draws_are_fresh_each_epoch_and_the_same_each_time() -> None:
    places = [(0, 0, 1), (1, 0, 1), (0, 1, 1), (0, 0, 2)]
    orders = [balanced_order(TARGETS, 88, *place).tolist() for place in places]
    assert orders[0] == balanced_order(TARGETS, 88, 0, 0, 1).tolist()
    assert all(orders[0] != other for other in orders[1:])
    # Over epochs all images of a frequent class are seen.
    seen = {i for epoch in range(20) for i in balanced_order(TARGETS, 90, epoch, 0, 1).tolist()}
    assert len(seen) == 90


def test_odd_images_go_to_classes_by_chance() -> None:
    most = [
        int(np.bincount(TARGETS[balanced_order(TARGETS, 88, epoch, 0, 1)]).argmax())
        for epoch in range(40)
    ]
    assert set(most) == {0, 1, 2}


def test_a_rank_balances_the_classes_it_has() -> None:
    targets = np.array([2, 0, 2, 2])
    assert np.bincount(targets[balanced_order(targets, 4, 0, 0, 0)]).tolist() == [2, 0, 2]
