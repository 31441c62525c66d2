"""Areas under ROC curves."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

Floats = NDArray[np.float64]


def class_auc(actual_N: NDArray[np.int64], scores_N: NDArray[np.floating], index: int) -> float:
    """AUC of one class against the rest; NaN where only one side is there."""
    is_class_N = actual_N == index
    if is_class_N.all() or not is_class_N.any():
        return float("nan")
    return float(roc_auc_score(is_class_N, scores_N))


def macro_auc(actual_N: NDArray[np.int64], scores_NC: NDArray[np.floating]) -> float:
    """AUC of two classes, or the mean of one-vs-rest AUCs; NaN where a class is missing."""
    classes = scores_NC.shape[1]
    if classes == 2:
        return class_auc(actual_N, scores_NC[:, 1], 1)
    return float(np.mean([class_auc(actual_N, scores_NC[:, c], c) for c in range(classes)]))


def weighted_aucs(
    is_positive_N: NDArray[np.bool_], scores_N: NDArray[np.floating], weights_RN: Floats
) -> Floats:
    """AUCs of R weightings of the same images; NaN where a side has no weight.

    Equal to the AUC of images repeated by whole weights: the weight of concordant pairs, ties
    counting a half, over that of all pairs (Mann and Whitney 1947). Costs one sort.
    """
    order = np.argsort(scores_N, kind="stable")
    ranked = scores_N[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    positive_N = is_positive_N[order]
    weights_RN = weights_RN[:, order]
    positive_RT = np.add.reduceat(np.where(positive_N, weights_RN, 0.0), starts, axis=1)
    negative_RT = np.add.reduceat(np.where(positive_N, 0.0, weights_RN), starts, axis=1)
    below_RT = np.cumsum(negative_RT, axis=1) - negative_RT
    concordant_R = (positive_RT * (below_RT + negative_RT / 2)).sum(axis=1)
    pairs_R = positive_RT.sum(axis=1) * negative_RT.sum(axis=1)
    aucs_R = np.full(len(pairs_R), np.nan)
    np.divide(concordant_R, pairs_R, out=aucs_R, where=pairs_R > 0)
    return aucs_R
