"""Average precision at one overlap, by COCO's protocol, for the epochs of a training.

It agrees with pycocotools; that package's own figures belong to the evaluation, and this function
to the training loop, whose ranks bring their detections together as plain rows.
"""

import numpy as np
from numpy.typing import NDArray

from workers.detection.boxes import Boxes, Detections, overlap
from workers.detection.matching import held

_RECALLS = np.linspace(0, 1, 101)
"""Recalls at which COCO reads the precision."""

Rows = NDArray[np.float64]
"""A row for each detection: category, confidence, 1 where it is right and 0 where not (R, 3)."""


def judge(detections: Detections, boxes: Boxes, min_overlap: float = 0.5) -> Rows:
    """Which detections of one image are right, by category, the most certain choosing first.

    Each takes the free box of its category that it overlaps most. One that takes none, and lies in
    an ignored region, has no row.
    """
    regions, wanted = boxes.take(boxes.ignored_B), boxes.take(~boxes.ignored_B)
    ratio_DW = overlap(detections.corners_D4, wanted.corners_B4)
    same_DW = detections.categories_D[:, None] == wanted.categories_B[None, :]
    ratio_DW = np.where(same_DW, ratio_DW, -1.0)
    right_D = np.zeros(len(detections), np.bool_)
    for place in np.flatnonzero((ratio_DW >= min_overlap).any(axis=1)):
        best = int(ratio_DW[place].argmax())
        if ratio_DW[place, best] >= min_overlap:
            right_D[place] = True
            ratio_DW[:, best] = -1.0
    counted_D = right_D | ~held(detections, regions, min_overlap)
    columns = (detections.categories_D, detections.scores_D, right_D)
    return np.stack([one.astype(np.float64) for one in columns], axis=1)[counted_D]


def average_precision(rows_R3: Rows, boxes_K: NDArray[np.int64]) -> float:
    """Mean over categories of the average precision; ``boxes_K`` counts the boxes of each.

    Categories without boxes are left out; NaN where there are no boxes at all.
    """
    found = [
        _of_category(rows_R3[rows_R3[:, 0] == category], int(count))
        for category, count in enumerate(boxes_K)
        if count
    ]
    return float(np.mean(found)) if found else float("nan")


def _of_category(rows_R3: Rows, boxes: int) -> float:
    if not len(rows_R3):
        return 0.0
    order = np.argsort(-rows_R3[:, 1], kind="stable")
    right_R = rows_R3[order, 2].cumsum()
    recall_R = right_R / boxes
    precision_R = right_R / np.arange(1, len(right_R) + 1)
    # The best precision at this recall or beyond.
    best_R = np.maximum.accumulate(precision_R[::-1])[::-1]
    places = np.searchsorted(recall_R, _RECALLS, side="left")
    reached = places < len(best_R)
    return float(np.where(reached, best_R[np.minimum(places, len(best_R) - 1)], 0.0).mean())
