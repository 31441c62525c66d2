"""Subgroups of images: by sex, by age in bands, by site."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

UNKNOWN = "unknown"


def subgroups(
    rows: pa.Table, columns: Sequence[str], age_bands: Sequence[float]
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Each subgroup that has images: its name, such as ``sex=F`` or ``age=40-60``, and its mask.

    Every image is in one subgroup of each column; where the value is not known, in ``unknown``.
    """
    for column in columns:
        values = rows.column(column).to_pylist()
        names = [_age_band(value, age_bands) for value in values] if column == "age" else values
        known_N = np.asarray([UNKNOWN if name in (None, "") else str(name) for name in names])
        for name in sorted(set(known_N.tolist())):
            yield f"{column}={name}", known_N == name


def _age_band(age: float | None, begins: Sequence[float]) -> str | None:
    """The band an age in years lies in; a band holds the year it begins with."""
    if age is None or not np.isfinite(age):
        return None
    place = int(np.searchsorted(begins, age, side="right"))
    if place == len(begins):
        return f"{begins[-1]:g}+"
    return f"{begins[place - 1] if place else 0:g}-{begins[place]:g}"
