"""Confusion matrices, one or many at once, and the figures that follow from them."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

Floats = NDArray[np.float64]


def confusion(
    actual_N: NDArray[np.int64], predicted_N: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Counts (C, C): actual class by row, predicted class by column."""
    counts: NDArray[np.int64] = confusion_matrix(actual_N, predicted_N, labels=range(classes))
    return counts


def weighted_confusions(
    actual_N: NDArray[np.int64],
    predicted_N: NDArray[np.int64],
    classes: int,
    weights_RN: Floats,
) -> Floats:
    """Confusion matrices (R, C, C) of R weightings of the same images."""
    cells_NK = np.zeros((len(actual_N), classes * classes))
    cells_NK[np.arange(len(actual_N)), actual_N * classes + predicted_N] = 1
    return (weights_RN @ cells_NK).reshape(-1, classes, classes)


def accuracy(counts: Floats) -> Floats:
    """Share of right labels, of matrices (..., C, C)."""
    return _ratio(np.trace(counts, axis1=-2, axis2=-1), counts.sum(axis=(-2, -1)))


def precision(counts: Floats) -> Floats:
    """Of images labelled with a class, the share that have it: (..., C); 0 where none is."""
    return _share(_hits(counts), counts.sum(axis=-2))


def recall(counts: Floats) -> Floats:
    """Of images that have a class, the share labelled so: (..., C); 0 where none has it."""
    return _share(_hits(counts), counts.sum(axis=-1))


def f1(counts: Floats) -> Floats:
    """Harmonic mean of precision and recall: (..., C); 0 where a class never occurs."""
    return _share(2 * _hits(counts), counts.sum(axis=-1) + counts.sum(axis=-2))


def sensitivity(counts: Floats, positive: int) -> Floats:
    """Share of the positive that are found, of matrices (..., 2, 2); NaN without positives."""
    return _ratio(counts[..., positive, positive], counts[..., positive, :].sum(axis=-1))


def specificity(counts: Floats, positive: int) -> Floats:
    """Share of the negative that are left alone, of (..., 2, 2); NaN without negatives."""
    return sensitivity(counts, 1 - positive)


def _hits(counts: Floats) -> Floats:
    return np.diagonal(counts, axis1=-2, axis2=-1)


def _share(part: Floats, whole: Floats) -> Floats:
    return np.nan_to_num(_ratio(part, whole))


def _ratio(part: Floats, whole: Floats) -> Floats:
    result: Floats = np.full(np.shape(part), np.nan)
    return np.divide(part, whole, out=result, where=np.asarray(whole) > 0)
