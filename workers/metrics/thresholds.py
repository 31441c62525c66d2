"""Choosing the operating point of a two-class model on its validation part."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from schemas.bundle import OperatingPoint

Rule = Literal["youden", "f1"]


def choose_point(
    actual_N: NDArray[np.int64],
    scores_NC: NDArray[np.floating],
    classes: Sequence[str],
    positive: str,
    rule: Rule = "youden",
) -> OperatingPoint:
    """The threshold on the positive class's probability that is best on these images.

    It lies half-way between two neighbouring scores, so that a backend's rounding moves no
    validation image across it. Of several equally good ones the highest is taken.

    Raises:
        ValueError: when one of the two classes has no image.
    """
    index = list(classes).index(positive)
    is_positive_N = actual_N == index
    if is_positive_N.all() or not is_positive_N.any():
        raise ValueError("an operating point needs images of both classes")
    scores_N = scores_NC[:, index].astype(np.float64)
    best = _youden(is_positive_N, scores_N) if rule == "youden" else _f1(is_positive_N, scores_N)
    lower = scores_N[scores_N < best]
    below = float(lower.max()) if len(lower) else 0.0
    return OperatingPoint(positive=positive, threshold=(best + below) / 2, rule=rule)


def _youden(is_positive_N: NDArray[np.bool_], scores_N: NDArray[np.float64]) -> float:
    """The score where sensitivity + specificity - 1 is largest (Youden 1950)."""
    false_share, true_share, thresholds = roc_curve(
        is_positive_N, scores_N, drop_intermediate=False
    )
    # The first threshold of the curve is infinite: nothing is labelled positive there.
    return float(thresholds[1:][np.argmax((true_share - false_share)[1:])])


def _f1(is_positive_N: NDArray[np.bool_], scores_N: NDArray[np.float64]) -> float:
    precisions, recalls, thresholds = precision_recall_curve(is_positive_N, scores_N)
    both = precisions[:-1] + recalls[:-1]
    values = np.divide(
        2 * precisions[:-1] * recalls[:-1], both, out=np.zeros_like(both), where=both > 0
    )
    return float(thresholds[len(values) - 1 - np.argmax(values[::-1])])
