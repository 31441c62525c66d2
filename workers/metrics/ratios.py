"""Divisions and means that leave undefined values undefined, without a warning."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def ratio(part: Floats, whole: Floats) -> Floats:
    """``part / whole``; NaN where the whole is not above 0."""
    result: Floats = np.full(np.shape(part), np.nan)
    return np.divide(part, whole, out=result, where=np.asarray(whole) > 0)


def defined_mean(values: Floats) -> Floats:
    """Mean over the last axis of the values that are no NaN; NaN where all are."""
    known = ~np.isnan(values)
    total: Floats = np.where(known, values, 0.0).sum(axis=-1)
    return ratio(total, known.sum(axis=-1).astype(np.float64))
