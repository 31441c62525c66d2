"""Resampling whole patients: how often each image counts in each resample."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

CHUNK_VALUES = 4_000_000
"""Weights held at once (images times resamples)."""


def patient_weights(
    groups: Sequence[str], resamples: int, seed: int
) -> Iterator[NDArray[np.float64]]:
    """Draw as many patients with replacement as there are, again and again.

    Yields weights (R, N) in chunks of resamples: each image counts as often as its patient was
    drawn. ``groups`` names each image's patient.
    """
    names, group_N = np.unique(np.asarray(list(groups), dtype=str), return_inverse=True)
    generator = np.random.default_rng(seed)
    chance = np.full(len(names), 1 / len(names))
    at_once = max(CHUNK_VALUES // max(len(group_N), 1), 1)
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn_RG = generator.multinomial(len(names), chance, size=count)
        yield drawn_RG[:, group_N].astype(np.float64)


def interval(values_R: NDArray[np.float64], level: float = 0.95) -> tuple[float, float] | None:
    """The central share of resampled values (percentiles); None where no value is defined."""
    defined = values_R[~np.isnan(values_R)]
    if not len(defined):
        return None
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high)
