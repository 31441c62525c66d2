"""Whether probabilities mean what they say: Brier score, log loss, calibration error."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BINS = 15
"""Bins of equal width, as in Guo et al. 2017; fixed, since the error depends on their number."""
SMALLEST = float(np.finfo(np.float32).eps)
"""Probabilities are held away from 0 by it before a logarithm is taken, as scikit-learn does."""


@dataclass(frozen=True)
class Bins:
    """Claims of probability by bins of equal width over (0, 1]; a claim of 0 is in the first."""

    count_B: Floats
    claimed_B: Floats
    """Sum of the probabilities claimed."""
    came_true_B: Floats
    """How many of the claims came true."""

    @staticmethod
    def of(claimed_N: NDArray[np.floating], came_true_N: NDArray[np.bool_]) -> "Bins":
        """Sort claims into bins."""
        edges = np.linspace(0, 1, BINS + 1)
        claimed_N = claimed_N.astype(np.float64)
        places = np.clip(np.searchsorted(edges, claimed_N, side="left") - 1, 0, BINS - 1)
        return Bins(
            np.bincount(places, minlength=BINS).astype(np.float64),
            np.bincount(places, claimed_N, BINS).astype(np.float64),
            np.bincount(places, came_true_N, BINS).astype(np.float64),
        )

    @property
    def error(self) -> float:
        """Mean distance between what a bin claimed and what came true, weighted by its claims."""
        return float(np.abs(self.claimed_B - self.came_true_B).sum() / self.count_B.sum())


def winning_bins(actual_N: NDArray[np.int64], scores_NC: NDArray[np.floating]) -> Bins:
    """Bins of the winning probability: did the likeliest class come true?

    The likeliest class counts, whatever an operating point makes of it: the claim is about that.
    """
    return Bins.of(scores_NC.max(axis=1), scores_NC.argmax(axis=1) == actual_N)


def calibration_error(actual_N: NDArray[np.int64], scores_NC: NDArray[np.floating]) -> float:
    """Expected calibration error (ECE) of the winning probability (Guo et al. 2017)."""
    return winning_bins(actual_N, scores_NC).error


def class_calibration_errors(
    actual_N: NDArray[np.int64], scores_NC: NDArray[np.floating]
) -> list[float]:
    """Expected calibration error of each class's probability (Kull et al. 2019)."""
    return [
        Bins.of(scores_NC[:, index], actual_N == index).error for index in range(scores_NC.shape[1])
    ]


def losses(actual_N: NDArray[np.int64], scores_NC: NDArray[np.floating]) -> Floats:
    """Brier score and negative log-likelihood (nats) of each image: (N, 2).

    The Brier score is the squared distance to the one-hot truth, halved for two classes: then it
    is that of the one class's probability (Brier 1950).
    """
    truth_NC = np.eye(scores_NC.shape[1])[actual_N]
    scores_NC = scores_NC.astype(np.float64)
    brier_N = ((scores_NC - truth_NC) ** 2).sum(axis=1)
    if scores_NC.shape[1] == 2:
        brier_N /= 2
    claimed_N = np.take_along_axis(scores_NC, actual_N[:, None], axis=1)[:, 0]
    surprise_N = -np.log(np.clip(claimed_N, SMALLEST, 1 - SMALLEST))
    return np.stack([brier_N, surprise_N], axis=1)
