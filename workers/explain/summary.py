"""The figures of many heat maps; light to import, since planning tells them too."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.plan import FinishFunction, ShardResult

STAGED = "_explained"
"""What the finishing step sees of the shards, and under which name."""
KNOWN = "_known"
"""What was explained before, of the images that were chosen."""
FIGURES = ("energy_inside", "pointing_hit", "region_share")
"""Columns of `explanations` that `summarise` needs."""


def load_finish(_params: Mapping[str, Any]) -> FinishFunction:
    """Prepare the step that tells the figures over all images that were chosen."""

    def finish(staged: Mapping[str, pa.Table]) -> ShardResult:
        tables = [staged[name].select(FIGURES) for name in (STAGED, KNOWN) if name in staged]
        return ShardResult({}, done=0, rejected=0, facts=summarise(pa.concat_tables(tables)))

    return finish


def summarise(rows: pa.Table) -> dict[str, float]:
    """Means over rows of `explanations` that have a region: the energy-based and the pointing game.

    The hit rate is over the images that have a peak; without any image there are no figures.
    """
    energy, hits, chance = (rows[name].to_pylist() for name in FIGURES)
    judged = [one for one in energy if one is not None]
    pointed = [one for one in hits if one is not None]
    told: dict[str, float] = {"images with a region": len(judged)}
    if judged:
        told["mean energy inside"] = _mean(judged)
        told["chance level"] = _mean(
            [one for one, inside in zip(chance, energy, strict=True) if inside is not None]
        )
    if pointed:
        told["pointing game hit rate"] = _mean(pointed)
        told["pointing game images"] = len(pointed)
    return told


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)
