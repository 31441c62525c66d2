"""Resampling whole patients: how often each patient counts in each resample."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_Key = TypeVar("_Key", bound=Hashable)

CHUNK_VALUES = 500_000
"""Images times resamples computed at once: a few such arrays fit into a processor's cache."""


@dataclass(frozen=True)
class Patients:
    """Whose image each one is. Axes: N images, G patients, R resamples, K values."""

    index_N: NDArray[np.int64]
    """Number of each image's patient."""
    count: int

    @staticmethod
    def of(groups: Sequence[str]) -> "Patients":
        """Number the patients whom ``groups`` names, image by image."""
        names, index_N = np.unique(np.asarray(list(groups), dtype=str), return_inverse=True)
        return Patients(index_N.astype(np.int64), len(names))

    def once(self) -> Floats:
        """Every patient as is: counts (G, 1)."""
        return np.ones((self.count, 1))

    def draws(self, resamples: int, seed: int) -> Iterator[Floats]:
        """Draw as many patients with replacement as there are, again and again.

        Yields how often each patient was drawn, (G, R), in chunks of resamples.
        """
        generator = np.random.default_rng(seed)
        chance = np.full(self.count, 1 / self.count)
        at_once = max(CHUNK_VALUES // max(len(self.index_N), 1), 1)
        for start in range(0, resamples, at_once):
            count = min(at_once, resamples - start)
            drawn_RG = generator.multinomial(self.count, chance, size=count)
            yield np.ascontiguousarray(drawn_RG.T, dtype=np.float64)

    def sums(self, values_NK: Floats) -> Floats:
        """Sums (G, K) of values over each patient's images.

        Sums over the images of resamples are then ``drawn_GR.T`` times these.
        """
        by_patient_KG = [
            np.bincount(self.index_N, weights=column, minlength=self.count)
            for column in values_NK.T
        ]
        return np.stack(by_patient_KG, axis=1)


def resampled_intervals(
    values: Callable[[Floats], dict[_Key, Floats]], patients: Patients, resamples: int, seed: int
) -> dict[_Key, tuple[float, float] | None]:
    """95 % intervals of what ``values`` computes of counts of patients (G, R).

    None at all with a single patient: nothing is known of how patients differ.
    """
    if patients.count < 2:
        return {}
    chunks = [values(drawn) for drawn in patients.draws(resamples, seed)]
    if not chunks:
        return {}
    return {key: interval(np.concatenate([chunk[key] for chunk in chunks])) for key in chunks[0]}


def interval(values_R: Floats, level: float = 0.95) -> tuple[float, float] | None:
    """The central share of resampled values (percentiles); None where no value is defined."""
    defined = values_R[~np.isnan(values_R)]
    if not len(defined):
        return None
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high)
