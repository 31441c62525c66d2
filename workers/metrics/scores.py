"""Areas under ROC and precision-recall curves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from schemas.bundle import OperatingPoint
from workers.metrics.bootstrap import Patients
from workers.metrics.ratios import ratio

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


def judged_places(classes: Sequence[str], point: OperatingPoint | None) -> list[int]:
    """Numbers of the classes whose AUCs are averaged, each against the rest.

    All of them; of two classes the positive one alone: the operating point's, or the last. The
    other's AUC is the same but for rounding, as float32 tells 1e-9 from 1e-8 but not 1 - 1e-9 from
    1 - 1e-8.
    """
    if len(classes) != 2:
        return list(range(len(classes)))
    return [list(classes).index(point.positive) if point else 1]


def class_auc(actual_N: NDArray[np.int64], scores_N: NDArray[np.floating], index: int) -> float:
    """AUC of one class against the rest; NaN where only one side is there."""
    is_class_N = actual_N == index
    if is_class_N.all() or not is_class_N.any():
        return float("nan")
    return float(roc_auc_score(is_class_N, scores_N))


def macro_auc(actual_N: NDArray[np.int64], scores_NC: NDArray[np.floating]) -> float:
    """AUC of the second of two classes, or the mean of one-vs-rest AUCs.

    NaN where a class is missing.
    """
    classes = scores_NC.shape[1]
    if classes == 2:
        return class_auc(actual_N, scores_NC[:, 1], 1)
    return float(np.mean([class_auc(actual_N, scores_NC[:, c], c) for c in range(classes)]))


@dataclass(frozen=True)
class Ranking:
    """Images of a class (P) and of the rest (Q) in the order of its score, sorted once.

    Any number of resamples of the patients then costs a few passes over (images, resamples).
    """

    positive_P: Places
    """Patient of each image of the class, lowest score first."""
    negative_Q: Places
    """Patient of each other image, lowest score first."""
    before_P: Places
    """Images of the class with a lower score."""
    below_P: Places
    """Other images with a lower score."""
    through_P: Places
    """Other images with a score not higher."""

    @staticmethod
    def of(
        is_positive_N: NDArray[np.bool_], scores_N: NDArray[np.floating], patients: Patients
    ) -> "Ranking":
        """Sort the images of a class and of the rest by the class's score."""
        order = np.argsort(scores_N, kind="stable")
        positive = order[is_positive_N[order]]
        negative = order[~is_positive_N[order]]
        ranked_P, others_Q = scores_N[positive], scores_N[negative]
        return Ranking(
            positive_P=patients.index_N[positive],
            negative_Q=patients.index_N[negative],
            before_P=np.searchsorted(ranked_P, ranked_P, side="left"),
            below_P=np.searchsorted(others_Q, ranked_P, side="left"),
            through_P=np.searchsorted(others_Q, ranked_P, side="right"),
        )

    def areas(self, drawn_GR: Floats) -> tuple[Floats, Floats]:
        """AUC and average precision (R,) of each resample; NaN where a side is empty.

        Both equal those of images repeated as often as their patient was drawn. The AUC is the
        share of concordant pairs, ties counting a half (Mann and Whitney 1947). The average
        precision is the mean, over images of the class, of the precision at their score; images of
        one score are found together.
        """
        drawn_PR = drawn_GR[self.positive_P]
        found_PR, others_QR = _cumulated(drawn_PR), _cumulated(drawn_GR[self.negative_Q])
        positives_R, negatives_R = found_PR[-1], others_QR[-1]
        below_PR = others_QR[self.below_P]
        concordant_R = np.einsum("pr,pr->r", drawn_PR, below_PR + others_QR[self.through_P]) / 2
        auc_R = ratio(concordant_R, positives_R * negatives_R)
        hits_PR = positives_R - found_PR[self.before_P]
        called_PR = hits_PR + (negatives_R - below_PR)
        # Where nothing is called nothing was drawn: any number but 0 keeps the quotient at 0.
        np.maximum(called_PR, 1.0, out=called_PR)
        hits_PR /= called_PR
        precision_R = ratio(np.einsum("pr,pr->r", drawn_PR, hits_PR), positives_R)
        return auc_R, np.where(np.isnan(auc_R), np.nan, precision_R)


def _cumulated(values_XR: Floats) -> Floats:
    """Sums of the first 0, 1, 2, ... rows."""
    sums = np.zeros((len(values_XR) + 1, values_XR.shape[1]))
    np.cumsum(values_XR, axis=0, out=sums[1:])
    return sums
