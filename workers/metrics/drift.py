"""How far a run's scores moved from those of the nights before it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats

from schemas.bundle import OperatingPoint
from workers.models.classifier.outputs import predicted

BINS = 10
"""Bins of the population stability index: tenths of the reference."""
_PSEUDOCOUNT = 0.5
"""Added to the count of every bin, so that an empty one does not make the index infinite."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Stability:
    """A population stability index, and how often chance makes one as large."""

    value: float
    p_value: float


def population_stability_index(scores_N: Doubles, reference_M: Doubles) -> Stability:
    """Sum over bins of (p - q) ln(p / q), p and q the shares of scores and reference in a bin.

    Bins are cut at the deciles of the reference; equal deciles make one bin. Half an image is added
    to every count. By the usual reading up to 0.1 is stable and above 0.25 is a shift (Siddiqi,
    Credit Risk Scorecards, 2006). Between samples of one distribution it is about (1/N + 1/M) times
    chi-squared with bins - 1 degrees of freedom (Yurdakul and Naranjo, J. Risk Model Validation 14,
    2020), which gives the p-value.
    """
    edges = np.unique(np.quantile(reference_M, np.linspace(0, 1, BINS + 1)[1:-1]))
    p = _shares(scores_N, edges)
    q = _shares(reference_M, edges)
    value = float(np.sum((p - q) * np.log(p / q)))
    spread = 1 / len(scores_N) + 1 / len(reference_M)
    return Stability(value, float(stats.chi2.sf(value / spread, len(edges))))


def _shares(values: Doubles, edges: Doubles) -> Doubles:
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    smoothed = (counts + _PSEUDOCOUNT) / (len(values) + _PSEUDOCOUNT * len(counts))
    return np.asarray(smoothed, np.float64)


def measure_drift(
    scores: pa.Table, reference: pa.Table, model: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Compare two tables with a column ``scores`` (probabilities in the order of the classes).

    ``model`` has the bundle's ``classes`` and ``operating_point`` (JSON). Each figure is that of
    the class that moved most: ``psi``, ``ks`` and ``class_share`` have ``value``, ``of`` and
    ``p_value`` (of chi-squared, Kolmogorov-Smirnov's and Fisher's exact test); ``class_share`` also
    ``now`` and ``before``, shares of the labels, and is missing where a bundle has no classes. Both
    tables need at least one row.
    """
    now_NC, before_MC = _matrix(scores), _matrix(reference)
    classes: Sequence[str] = model["classes"] or ()
    point = _operating_point(model)
    watched = _watched(classes, point)
    psi = {
        name: population_stability_index(now_NC[:, place], before_MC[:, place])
        for name, place in watched.items()
    }
    tests = {
        name: stats.ks_2samp(now_NC[:, place], before_MC[:, place])
        for name, place in watched.items()
    }
    moved = max(psi, key=lambda name: psi[name].value)
    parted = max(tests, key=lambda name: float(tests[name].statistic))
    found: dict[str, Any] = {
        "psi": {"value": psi[moved].value, "of": moved, "p_value": psi[moved].p_value},
        "ks": {
            "value": float(tests[parted].statistic),
            "of": parted,
            "p_value": float(tests[parted].pvalue),
        },
    }
    if classes:
        labels = _label_counts(now_NC, classes, point), _label_counts(before_MC, classes, point)
        found["class_share"] = _class_share(*labels, watched)
    return found


def _label_counts(
    scores_NC: Doubles, classes: Sequence[str], point: OperatingPoint | None
) -> NDArray[np.int64]:
    # A label is decided on scores as the lake holds them.
    labels_N = predicted(scores_NC.astype(np.float32), classes, point)
    return np.asarray(np.bincount(labels_N, minlength=len(classes)), np.int64)


def _class_share(
    now_C: NDArray[np.int64], before_C: NDArray[np.int64], watched: Mapping[str, int]
) -> dict[str, Any]:
    now_all, before_all = int(now_C.sum()), int(before_C.sum())
    change_C = np.abs(now_C / now_all - before_C / before_all)
    name = max(watched, key=lambda one: float(change_C[watched[one]]))
    now, before = int(now_C[watched[name]]), int(before_C[watched[name]])
    table = np.array([[now, now_all - now], [before, before_all - before]])
    test = stats.fisher_exact(table)
    return {
        "value": float(change_C[watched[name]]),
        "of": name,
        "p_value": float(test.pvalue),
        "now": now / now_all,
        "before": before / before_all,
    }


def _watched(classes: Sequence[str], point: OperatingPoint | None) -> dict[str, int]:
    """Names and places of the probabilities to compare; of two that add up to one, one will do."""
    if not classes:
        return {"score": 0}
    if len(classes) == 2:
        positive = point.positive if point else classes[-1]
        return {positive: list(classes).index(positive)}
    return {name: place for place, name in enumerate(classes)}


def _operating_point(model: Mapping[str, Any]) -> OperatingPoint | None:
    stated = model["operating_point"]
    return OperatingPoint.model_validate(json.loads(stated)) if stated else None


def _matrix(table: pa.Table) -> Doubles:
    lists = table["scores"].combine_chunks()
    flat: Doubles = lists.flatten().to_numpy().astype(np.float64)
    return flat.reshape(len(lists), -1)
