"""How far a run's scores moved from those of the nights before it."""

import json
import math
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
NOTHING = "none"
"""The label of an image on which a detector found nothing, as in a confusion matrix."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Stability:
    """A population stability index, and how often chance makes one as large."""

    value: float
    p_value: float


def population_stability_index(scores_N: Doubles, reference_M: Doubles) -> Stability:
    """Sum over bins of (p - q) ln(p / q), p and q the shares of scores and reference in a bin.

    Bins are cut at the deciles of the reference; equal deciles make one bin. A decile that half a
    tenth of the reference equals is a bin of its own, so that a move to below it shows. Bins in
    which nothing lies are left out, and half an image is added to every other count. By the usual
    reading up to 0.1 is stable and above 0.25 is a shift (Siddiqi, Credit Risk Scorecards, 2006).
    Between samples of one distribution it is about (1/N + 1/M) times chi-squared with bins - 1
    degrees of freedom (Yurdakul and Naranjo, J. Risk Model Validation 14, 2020), which gives the
    p-value. Where a value is not finite, neither is the index.
    """
    if not (np.isfinite(scores_N).all() and np.isfinite(reference_M).all()):
        return Stability(math.nan, math.nan)
    edges = _edges(reference_M)
    now_B, before_B = _counts(scores_N, edges), _counts(reference_M, edges)
    filled_B = now_B + before_B > 0
    bins = int(filled_B.sum())
    if bins == 1:
        return Stability(0.0, 1.0)
    p, q = _shares(now_B[filled_B]), _shares(before_B[filled_B])
    value = float(np.sum((p - q) * np.log(p / q)))
    spread = 1 / len(scores_N) + 1 / len(reference_M)
    return Stability(value, float(stats.chi2.sf(value / spread, bins - 1)))


def _edges(reference_M: Doubles) -> Doubles:
    """Upper ends of all bins but the last; a tied decile has one right below it as well."""
    deciles = np.unique(np.quantile(reference_M, np.linspace(0, 1, BINS + 1)[1:-1]))
    shares = np.array([np.mean(reference_M == one) for one in deciles])
    tied = deciles[shares >= 0.5 / BINS]
    return np.unique(np.concatenate([deciles, np.nextafter(tied, -np.inf)]))


def _counts(values: Doubles, edges: Doubles) -> NDArray[np.int64]:
    places = np.searchsorted(edges, values, side="left")
    return np.asarray(np.bincount(places, minlength=len(edges) + 1), np.int64)


def _shares(counts_B: NDArray[np.int64]) -> Doubles:
    smoothed = (counts_B + _PSEUDOCOUNT) / (counts_B.sum() + _PSEUDOCOUNT * len(counts_B))
    return np.asarray(smoothed, np.float64)


def measure_drift(
    scores: pa.Table, reference: pa.Table, model: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Compare two tables with a column ``scores`` (in the order of the classes).

    ``model`` is the bundle's row of `models`: its ``family``, ``classes``, and as JSON its
    ``operating_point`` and ``metrics``. A detector's scores are the confidences of its best boxes,
    so its label is that of the most confident one, or ``none`` where no box reaches its operating
    point, as in the view `latest_predictions`.

    ``psi``, ``ks`` and ``class_share`` have a figure for each class, those that moved most first,
    with ``value``, ``of`` and ``p_value`` (of chi-squared, Kolmogorov-Smirnov's and Fisher's exact
    test); ``class_share`` also ``now`` and ``before``, shares of the labels, and is missing where a
    bundle has no classes. Of two that add up to one, one is told. Both tables need at least one
    row.
    """
    now_NC, before_MC = _matrix(scores), _matrix(reference)
    meaning = _Meaning.of(model)
    psi = {
        name: population_stability_index(now_NC[:, place], before_MC[:, place])
        for name, place in meaning.scores
    }
    tests = {
        name: stats.ks_2samp(now_NC[:, place], before_MC[:, place])
        for name, place in meaning.scores
    }
    found = {
        "psi": [
            {"value": one.value, "of": name, "p_value": one.p_value} for name, one in psi.items()
        ],
        "ks": [
            {"value": float(one.statistic), "of": name, "p_value": float(one.pvalue)}
            for name, one in tests.items()
        ],
    }
    if meaning.classes:
        counts = meaning.count_labels(now_NC), meaning.count_labels(before_MC)
        found["class_share"] = [
            _class_share(*counts, place) | {"of": name} for name, place in meaning.labels
        ]
    return {name: sorted(figures, key=_move, reverse=True) for name, figures in found.items()}


def _move(figure: Mapping[str, Any]) -> float:
    """By what figures are sorted; what is no number comes first."""
    value = float(figure["value"])
    return math.inf if math.isnan(value) else value


@dataclass(frozen=True)
class _Meaning:
    """What a model's scores mean."""

    classes: Sequence[str]
    point: OperatingPoint | None
    confidence: float | None
    """From where on a detection counts; none for what is no detector."""

    @staticmethod
    def of(model: Mapping[str, Any]) -> "_Meaning":
        classes, stated = model["classes"] or (), model["operating_point"]
        point = OperatingPoint.model_validate_json(stated) if stated else None
        if model["family"] == "classifier" or not classes:
            return _Meaning(classes, point, None)
        metrics = json.loads(model["metrics"] or "{}")
        return _Meaning(classes, point, float(metrics.get("threshold", 0.0)))

    @property
    def scores(self) -> list[tuple[str, int]]:
        """Names and places of the scores to compare; of two that add up to one, one will do."""
        if not self.classes:
            return [("score", 0)]
        if self.confidence is None and len(self.classes) == 2:
            positive = self.point.positive if self.point else self.classes[-1]
            return [(positive, list(self.classes).index(positive))]
        return [(name, place) for place, name in enumerate(self.classes)]

    @property
    def labels(self) -> list[tuple[str, int]]:
        """Names and places of the labels to compare; a detector of one class has two of them."""
        if self.confidence is None or len(self.classes) == 1:
            return self.scores
        return [*self.scores, (NOTHING, len(self.classes))]

    def count_labels(self, scores_NC: Doubles) -> NDArray[np.int64]:
        """Images by label, in the order of the classes; a detector's last is nothing found."""
        labels = len(self.classes) + (self.confidence is not None)
        # A label is decided on scores as the lake holds them.
        labels_N = predicted(scores_NC.astype(np.float32), self.classes, self.point)
        if self.confidence is not None:
            best_N = scores_NC.max(axis=1)
            is_found_N = (best_N > 0) & (best_N >= self.confidence)
            labels_N = np.where(is_found_N, labels_N, len(self.classes))
        return np.asarray(np.bincount(labels_N, minlength=labels), np.int64)


def _class_share(
    now_L: NDArray[np.int64], before_L: NDArray[np.int64], place: int
) -> dict[str, Any]:
    now_all, before_all = int(now_L.sum()), int(before_L.sum())
    now, before = int(now_L[place]), int(before_L[place])
    table = np.array([[now, now_all - now], [before, before_all - before]])
    test = stats.fisher_exact(table)
    return {
        "value": abs(now / now_all - before / before_all),
        "p_value": float(test.pvalue),
        "now": now / now_all,
        "before": before / before_all,
    }


def _matrix(table: pa.Table) -> Doubles:
    lists = table["scores"].combine_chunks()
    flat: Doubles = lists.flatten().to_numpy().astype(np.float64)
    return flat.reshape(len(lists), -1)
