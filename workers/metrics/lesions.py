"""Lesions found and missed by diagnosis, from the confusion matrix that includes none.

Axes: E lesions and over-detections, N images, K classes, G patients, S resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.detection.matching import Outcomes
from workers.detection.matching import confusion as count_cells
from workers.metrics import confusion as matrices
from workers.metrics.bootstrap import Patients, resampled_intervals
from workers.metrics.classification import Key
from workers.metrics.ratios import defined_mean

Floats = NDArray[np.float64]

NOTHING = "none"
"""The category of what is no lesion, or was not found, in `confusion`."""


@dataclass(frozen=True)
class Lesions:
    """The confusion matrices of images at one confidence."""

    counts_NMM: NDArray[np.int64]
    """A matrix an image, actual by row and found by column, none first: M = K + 1."""
    classes: tuple[str, ...]
    patients: Patients

    @staticmethod
    def of(
        images: Sequence[Outcomes],
        groups: Sequence[str],
        classes: Sequence[str],
        threshold: float,
    ) -> "Lesions":
        """Count the outcomes of images; ``groups`` names each image's patient."""
        side = len(classes) + 1
        found = [count_cells(one, len(classes), threshold) for one in images]
        counts_NMM = np.stack(found) if found else np.zeros((0, side, side), np.int64)
        return Lesions(counts_NMM, tuple(classes), Patients.of(groups))

    def matrix(self) -> NDArray[np.int64]:
        """The matrix over all images."""
        whole: NDArray[np.int64] = self.counts_NMM.sum(axis=0)
        return whole


def lesion_figures(
    lesions: Lesions, *, resamples: int = 0, seed: int = 0
) -> dict[Key, tuple[float, tuple[float, float] | None]]:
    """The table by diagnosis, and the cells of the matrix.

    ``total`` lesions, ``over_detections`` and ``misses`` of each class and, without a category, of
    all; ``precision``, ``recall`` and ``f1`` of each class and their mean over the classes that
    have a lesion, with 95 % intervals from resampling whole patients; ``confusion`` by
    ``actual|found``.
    """
    matrix_MM, classes = lesions.matrix(), lesions.classes
    found: dict[Key, tuple[float, tuple[float, float] | None]] = {}
    sums = {
        "total": matrix_MM.sum(axis=1)[1:],
        "over_detections": matrix_MM[0, 1:],
        "misses": matrix_MM[1:, 0],
    }
    for metric, values_K in sums.items():
        found[metric, None] = (float(values_K.sum()), None)
        for name, value in zip(classes, values_K, strict=True):
            found[metric, name] = (float(value), None)
    found |= _ratios_with_intervals(lesions, resamples, seed)
    names = (NOTHING, *classes)
    for row, actual in enumerate(names):
        for column, called in enumerate(names):
            found["confusion", f"{actual}|{called}"] = (float(matrix_MM[row, column]), None)
    return found


def ratios_of(counts_MM: Floats, classes: Sequence[str]) -> dict[Key, Floats]:
    """Precision, recall and F1 of matrices (..., M, M); each value has the leading shape.

    NaN for a class without a lesion, which counts in no mean either.
    """
    occurs_K = counts_MM.sum(axis=-1)[..., 1:] > 0
    by_class = {
        "precision": matrices.precision(counts_MM),
        "recall": matrices.recall(counts_MM),
        "f1": matrices.f1(counts_MM),
    }
    found: dict[Key, Floats] = {}
    for metric, values_M in by_class.items():
        values_K = np.where(occurs_K, values_M[..., 1:], np.nan)
        found[metric, None] = defined_mean(values_K)
        for place, name in enumerate(classes):
            found[metric, name] = values_K[..., place]
    return found


def _ratios_with_intervals(
    lesions: Lesions, resamples: int, seed: int
) -> dict[Key, tuple[float, tuple[float, float] | None]]:
    side, patients = len(lesions.classes) + 1, lesions.patients
    flat_NC = lesions.counts_NMM.reshape(-1, side * side).astype(np.float64)
    summed_GC = patients.sums(flat_NC)

    def values(drawn_GS: Floats) -> dict[Key, Floats]:
        return ratios_of((drawn_GS.T @ summed_GC).reshape(-1, side, side), lesions.classes)

    intervals = resampled_intervals(values, patients, resamples, seed)
    return {
        key: (float(value[0]), intervals.get(key))
        for key, value in values(patients.once()).items()
        if not np.isnan(value[0])
    }
