"""Lesions and detections matched by the study's protocol, against loops that say it in words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from workers.detection.boxes import Boxes, Detections, overlap
from workers.detection.matching import (
    THRESHOLDS,
    choose_threshold,
    confusion,
    join,
    match,
    rates,
)

CLASSES = 3


def boxes_of(*rows: tuple[float, float, float, float, int, bool]) -> Boxes:
    """Left, top, right, bottom, category, ignored."""
    return Boxes(
        np.array([row[:4] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[4] for row in rows], np.int64),
        np.array([row[5] for row in rows], np.bool_),
    )


def found_of(*rows: tuple[float, float, float, float, int, float]) -> Detections:
    """Left, top, right, bottom, category, confidence."""
    ordered = sorted(rows, key=lambda row: -row[5])
    return Detections(
        np.array([row[:4] for row in ordered], np.float32).reshape(-1, 4),
        np.array([row[5] for row in ordered], np.float32),
        np.array([row[4] for row in ordered], np.int64),
    )


def in_words(found: Detections, boxes: Boxes, threshold: float) -> NDArray[np.int64]:
    """The protocol as loops: filter by confidence first, then match."""
    matrix = np.zeros((CLASSES + 1, CLASSES + 1), np.int64)
    lesions = [place for place in range(len(boxes)) if not boxes.ignored_B[place]]
    named: dict[int, list[tuple[float, int]]] = {place: [] for place in lesions}
    for one in range(len(found)):
        if float(found.scores_D[one]) < threshold:
            continue
        corner_14 = found.corners_D4[one : one + 1]
        ratios = [overlap(corner_14, boxes.corners_B4[[place]])[0, 0] for place in lesions]
        if ratios and max(ratios) >= 0.25:
            owner = lesions[int(np.argmax(ratios))]
            named[owner].append((float(found.scores_D[one]), int(found.categories_D[one])))
            continue
        left, top, right, bottom = map(float, corner_14[0])
        area = (right - left) * (bottom - top)
        inside = False
        for place in np.flatnonzero(boxes.ignored_B):
            low_x, low_y, high_x, high_y = map(float, boxes.corners_B4[place])
            wide = max(min(right, high_x) - max(left, low_x), 0)
            high = max(min(bottom, high_y) - max(top, low_y), 0)
            inside |= wide * high >= 0.25 * area
        if not inside:
            matrix[0, found.categories_D[one] + 1] += 1
    for place, answers in named.items():
        called = max(answers, key=lambda one: one[0])[1] + 1 if answers else 0
        matrix[boxes.categories_B[place] + 1, called] += 1
    return matrix


_corner = st.integers(0, 40)
_side = st.integers(4, 30)
_category = st.integers(0, CLASSES - 1)
_lesion = st.tuples(_corner, _corner, _side, _side, _category, st.booleans())
_detection = st.tuples(_corner, _corner, _side, _side, _category, st.integers(1, 1000))


@given(
    lesions=st.lists(_lesion, max_size=5),
    # Confidences differ: which of two equal ones counts is the first, by the order they come in.
    answers=st.lists(_detection, max_size=8, unique_by=lambda one: one[5]),
)
@settings(max_examples=200)
def test_the_protocol_in_words_and_in_arrays(
    lesions: list[tuple[int, int, int, int, int, bool]],
    answers: list[tuple[int, int, int, int, int, int]],
) -> None:
    boxes = boxes_of(*((x, y, x + w, y + h, c, i) for x, y, w, h, c, i in lesions))
    found = found_of(*((x, y, x + w, y + h, c, s / 1000) for x, y, w, h, c, s in answers))
    outcomes = match(found, boxes)
    for threshold in (0.0, 0.3, 0.55, 1.0):
        expected = in_words(found, boxes, threshold)
        assert (confusion(outcomes, CLASSES, threshold) == expected).all()
        # Every lesion counts once, whatever is detected.
        assert confusion(outcomes, CLASSES, threshold)[1:].sum() == (~boxes.ignored_B).sum()


def test_several_detections_of_one_lesion_count_once_as_the_most_confident() -> None:
    boxes = boxes_of((0, 0, 20, 20, 1, False))
    found = found_of((1, 0, 20, 20, 1, 0.6), (0, 0, 20, 21, 2, 0.9), (50, 50, 60, 60, 0, 0.4))
    outcomes = match(found, boxes)
    assert confusion(outcomes, 3, 0.5).tolist() == [
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
    ]
    assert confusion(outcomes, 3, 0.3)[0].tolist() == [0, 1, 0, 0]
    # Above every confidence the lesion is missed.
    assert confusion(outcomes, 3, 0.95)[2].tolist() == [1, 0, 0, 0]


def test_images_without_boxes_or_detections() -> None:
    assert confusion(match(found_of(), boxes_of()), 2, 0.0).sum() == 0
    missed = match(found_of(), boxes_of((0, 0, 9, 9, 1, False)))
    assert confusion(missed, 2, 0.0).tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert confusion(join([]), 2, 0.0).sum() == 0


def test_figures_of_the_studys_first_table() -> None:
    """The matrix of YOLOX in the study, whose table gives these figures."""
    matrix = np.array(
        [
            [0, 851, 371, 468, 28],
            [297, 2708, 17, 15, 0],
            [371, 25, 810, 152, 13],
            [591, 33, 126, 2203, 9],
            [339, 37, 396, 141, 108],
        ]
    )
    cyst, hcc, hemangioma, meta = rates(matrix)
    assert cyst == pytest.approx((0.7411, 0.8917, 0.8094), abs=5e-5)
    assert hcc == pytest.approx((0.4709, 0.5908, 0.5241), abs=5e-5)
    assert hemangioma == pytest.approx((0.7395, 0.7438, 0.7416), abs=6e-5)
    # The table has a recall of 0.1058 for 108 of 1021.
    assert meta == pytest.approx((0.6835, 0.1058, 0.1832), abs=5e-5)
    assert np.mean([one.f1 for one in (cyst, hcc, hemangioma, meta)]) == pytest.approx(
        0.5646, abs=5e-5
    )


def test_thresholds_are_rounded_and_reach_one() -> None:
    assert len(THRESHOLDS) == 21
    assert THRESHOLDS[6] == 0.3
    assert THRESHOLDS[-1] == 1.0


def test_the_operating_point_has_the_best_f1() -> None:
    """Right answers at 0.8, wrong ones at 0.42: best just above those, and the lowest such."""
    images = [
        match(
            found_of((0, 0, 20, 20, 0, 0.8), (50, 50, 70, 70, 0, 0.42)),
            boxes_of((0, 0, 20, 20, 0, False)),
        )
        for _ in range(5)
    ]
    chosen = choose_threshold(join(images), 2)
    assert chosen.threshold == 0.45
    assert chosen.macro_f1 == 1.0


def test_nothing_to_find_leaves_the_lowest_threshold() -> None:
    assert choose_threshold(join([]), 2) == (0.0, 0.0)
