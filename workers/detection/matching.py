"""Which lesions of an image were found, by the protocol of clinical detection studies.

A detection belongs to the lesion it overlaps most, if by enough. A lesion with several detections
is found once, as what the most confident of them says. What belongs to no lesion is an
over-detection, each on its own, unless an ignored region holds it. So every lesion counts exactly
once, and the rows of the confusion matrix add up to what was annotated.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.detection.boxes import Boxes, Detections, Ints, overlap

NONE = -1
"""In place of a category: no lesion there, or none found."""

MIN_OVERLAP = 0.25
"""Intersection over union that the study of abdominal ultrasound takes; lesions have soft rims."""

THRESHOLDS: tuple[float, ...] = tuple(round(0.05 * step, 2) for step in range(21))
"""0.00, 0.05 .. 1.00; rounded, as multiples of 0.05 are not (0.30000000000000004)."""


class Outcomes(NamedTuple):
    """What became of lesions and detections; an entry for each lesion and each over-detection."""

    actual_E: Ints
    """Category of the lesion; `NONE` for an over-detection."""
    found_E: Ints
    """Category of its most confident detection; `NONE` where it has none at any confidence."""
    scores_E: NDArray[np.float64]
    """Confidence of that detection; -1 where there is none."""


def match(detections: Detections, boxes: Boxes, min_overlap: float = MIN_OVERLAP) -> Outcomes:
    """Match the detections of one image, at every confidence at once, to what is marked in it.

    Of detections equally confident the first counts; of lesions overlapped equally, too.
    """
    regions, lesions = boxes.take(boxes.ignored_B), boxes.take(~boxes.ignored_B)
    ratio_DL = overlap(detections.corners_D4, lesions.corners_B4)
    owner_D = np.full(len(detections), NONE, np.int64)
    if len(lesions) and len(detections):
        best_D = ratio_DL.argmax(axis=1)
        enough_D = ratio_DL[np.arange(len(best_D)), best_D] >= min_overlap
        owner_D = np.where(enough_D, best_D, NONE)
    found_L = np.full(len(lesions), NONE, np.int64)
    scores_L = np.full(len(lesions), -1.0)
    # The first of a lesion's detections is the most confident one.
    matched = np.flatnonzero(owner_D != NONE)
    found, first = np.unique(owner_D[matched], return_index=True)
    found_L[found] = detections.categories_D[matched[first]]
    scores_L[found] = detections.scores_D[matched[first]]
    over_D = (owner_D == NONE) & ~held(detections, regions, min_overlap)
    over = detections.take(over_D)
    return Outcomes(
        np.concatenate([lesions.categories_B, np.full(len(over), NONE, np.int64)]),
        np.concatenate([found_L, over.categories_D]),
        np.concatenate([scores_L, over.scores_D.astype(np.float64)]),
    )


def held(detections: Detections, regions: Boxes, min_overlap: float) -> NDArray[np.bool_]:
    """Which detections have at least such a share of their area within one of the regions.

    As COCO judges crowds: a region may hold many objects, so the union is not asked.
    """
    if not len(regions) or not len(detections):
        return np.zeros(len(detections), np.bool_)
    one_D4 = detections.corners_D4.astype(np.float64)
    other_R4 = regions.corners_B4.astype(np.float64)
    low_DR2 = np.maximum(one_D4[:, None, :2], other_R4[None, :, :2])
    high_DR2 = np.minimum(one_D4[:, None, 2:], other_R4[None, :, 2:])
    shared_DR = np.clip(high_DR2 - low_DR2, 0, None).prod(axis=2)
    area_D = np.maximum((one_D4[:, 2:] - one_D4[:, :2]).prod(axis=1), 1e-9)
    inside_D: NDArray[np.bool_] = (shared_DR / area_D[:, None]).max(axis=1) >= min_overlap
    return inside_D


def join(images: Iterable[Outcomes]) -> Outcomes:
    """The outcomes of several images as one."""
    parts = list(images)
    if not parts:
        nothing = np.zeros(0, np.int64)
        return Outcomes(nothing, nothing, np.zeros(0))
    return Outcomes(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def confusion(outcomes: Outcomes, classes: int, threshold: float) -> NDArray[np.int64]:
    """The (K + 1) x (K + 1) matrix at a confidence: actual in rows, found in columns, None first.

    Category k is row and column k + 1; detections below the threshold are none.
    """
    counted_E = outcomes.scores_E >= threshold
    found_E = np.where(counted_E, outcomes.found_E, NONE)
    real_E = (outcomes.actual_E != NONE) | (found_E != NONE)
    flat_E = (outcomes.actual_E + 1) * (classes + 1) + found_E + 1
    counts = np.bincount(flat_E[real_E], minlength=(classes + 1) ** 2)
    return counts.reshape(classes + 1, classes + 1).astype(np.int64)


class Rates(NamedTuple):
    """Figures of one category."""

    precision: float
    """Right among all that were called so; 0 where nothing was."""
    recall: float
    """Right among all that are so; 0 where nothing is."""
    f1: float


def rates(matrix: NDArray[np.int64]) -> list[Rates]:
    """Precision, recall and F1 of each category of a matrix as `confusion` makes it."""
    right_K = np.diag(matrix)[1:].astype(np.float64)
    called_K, actual_K = matrix[:, 1:].sum(axis=0), matrix[1:].sum(axis=1)
    precision_K = np.divide(right_K, called_K, out=np.zeros_like(right_K), where=called_K > 0)
    recall_K = np.divide(right_K, actual_K, out=np.zeros_like(right_K), where=actual_K > 0)
    both_K = called_K + actual_K  # F1 is twice the right ones by the sum of both
    f1_K = np.divide(2 * right_K, both_K, out=np.zeros_like(right_K), where=both_K > 0)
    return [Rates(*map(float, one)) for one in zip(precision_K, recall_K, f1_K, strict=True)]


class Chosen(NamedTuple):
    """An operating point."""

    threshold: float
    macro_f1: float


def choose_threshold(
    outcomes: Outcomes, classes: int, thresholds: tuple[float, ...] = THRESHOLDS
) -> Chosen:
    """The confidence of the best macro F1 over the categories that are there; the lowest of equals.

    Categories no lesion has are left out of the mean: their F1 is 0 at every threshold.
    """
    present = np.unique(outcomes.actual_E[outcomes.actual_E != NONE])
    best = Chosen(thresholds[0], -1.0)
    for threshold in thresholds:
        every = rates(confusion(outcomes, classes, threshold))
        f1 = float(np.mean([every[one].f1 for one in present])) if len(present) else 0.0
        if f1 > best.macro_f1:
            best = Chosen(threshold, f1)
    return best
