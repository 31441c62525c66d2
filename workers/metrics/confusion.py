"""Confusion matrices, one or many at once, and the figures that follow from them.

A figure of a class that has no images is NaN, except where predictions alone make it 0: what was
labelled as a class that nothing has, has precision 0 and F1 0.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from workers.metrics.ratios import ratio

Floats = NDArray[np.float64]


def confusion(
    actual_N: NDArray[np.int64], predicted_N: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Counts (C, C): actual class by row, predicted class by column."""
    counts: NDArray[np.int64] = confusion_matrix(actual_N, predicted_N, labels=range(classes))
    return counts


def cells(actual_N: NDArray[np.int64], predicted_N: NDArray[np.int64], classes: int) -> Floats:
    """One-hot rows (N, C x C): the cell of the confusion matrix that each image is counted in."""
    cells_NK = np.zeros((len(actual_N), classes * classes))
    cells_NK[np.arange(len(actual_N)), actual_N * classes + predicted_N] = 1
    return cells_NK


def accuracy(counts: Floats) -> Floats:
    """Share of right labels, of matrices (..., C, C)."""
    return ratio(_hits(counts).sum(axis=-1), counts.sum(axis=(-2, -1)))


def precision(counts: Floats) -> Floats:
    """Of images labelled with a class, the share that have it: (..., C).

    0 where none is labelled so; NaN where none has the class either.
    """
    return share_of_found(_hits(counts), counts.sum(axis=-2), counts)


def recall(counts: Floats) -> Floats:
    """Of images that have a class, the share labelled so: (..., C); NaN where none has it."""
    return ratio(_hits(counts), counts.sum(axis=-1))


def f1(counts: Floats) -> Floats:
    """Harmonic mean of precision and recall: (..., C); NaN where a class never occurs."""
    return ratio(2 * _hits(counts), counts.sum(axis=-1) + counts.sum(axis=-2))


def specificity(counts: Floats) -> Floats:
    """Of images of other classes, the share not labelled with a class: (..., C).

    NaN where all images have the class.
    """
    others = counts.sum(axis=(-2, -1))[..., None] - counts.sum(axis=-1)
    return ratio(others - (counts.sum(axis=-2) - _hits(counts)), others)


def share_of_found(part: Floats, whole: Floats, counts: Floats) -> Floats:
    """``part / whole`` by class; 0 where the whole is 0 though images have the class."""
    shares = ratio(part, whole)
    occurs = counts.sum(axis=-1) > 0
    return np.where(np.isnan(shares) & occurs, 0.0, shares)


def _hits(counts: Floats) -> Floats:
    return np.diagonal(counts, axis1=-2, axis2=-1)
