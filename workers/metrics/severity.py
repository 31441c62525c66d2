"""Figures for classes in an order of severity, where confusions are not equally bad.

docs/severity.md says which reading of which source each figure takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.metrics.confusion import share_of_found
from workers.metrics.ratios import defined_mean, ratio

Floats = NDArray[np.float64]
Key = tuple[str, str | None]


@dataclass(frozen=True)
class Severity:
    """An order of a model's K classes, and what its confusions cost."""

    order_K: tuple[int, ...]
    """The model's classes by number, mildest first."""
    costs_KK: Floats
    """Cost of each decision, in the order of severity: actual class by row, predicted by column."""
    weights_KK: Floats
    """Weights of false positives: predicted class by row, actual by column; the diagonal is not
    read."""

    @staticmethod
    def of(
        model_classes: Sequence[str],
        classes: Sequence[str],
        costs: Sequence[Sequence[float]] = (),
        false_positive_weights: Sequence[Sequence[float]] = (),
    ) -> "Severity":
        """The order ``classes`` over a model's classes.

        Without ``costs`` a decision costs the distance between the classes; without weights all
        false positives count 1.
        """
        count = len(classes)
        places = np.arange(count, dtype=np.float64)
        distance_KK = np.abs(places[:, None] - places)
        return Severity(
            tuple(list(model_classes).index(name) for name in classes),
            np.asarray(costs, np.float64) if costs else distance_KK,
            np.asarray(false_positive_weights, np.float64)
            if false_positive_weights
            else np.ones((count, count)),
        )


def severity_values(
    counts: Floats, classes: Sequence[str], severity: Severity
) -> dict[Key, Floats]:
    """All figures of matrices (..., C, C) in the model's order of classes ``classes``.

    Each value has the leading shape. Categories are a class that was judged milder than it is, or
    ``actual|predicted`` for one such confusion.
    """
    ordered = counts[..., severity.order_K, :][..., severity.order_K]
    names = [classes[index] for index in severity.order_K]
    shares = row_shares(ordered)
    values: dict[Key, Floats] = {}
    for row in range(1, len(names)):
        values["under_triage", names[row]] = shares[..., row, :row].sum(axis=-1)
        for column in range(row):
            values["under_triage", f"{names[row]}|{names[column]}"] = shares[..., row, column]
    rates = under_triage(ordered)
    values["custom_plus", None] = rates.sum(axis=-1)
    values["custom_multi", None] = rates.prod(axis=-1)
    values["custom_precision", None] = custom_precision(ordered, severity.weights_KK)
    values["expected_cost", None] = expected_cost(ordered, severity.costs_KK)
    values["quadratic_kappa", None] = quadratic_kappa(ordered)
    return values


def row_shares(counts: Floats) -> Floats:
    """P(predicted | actual) of matrices (..., K, K); rows of classes without images are NaN."""
    return ratio(counts, np.broadcast_to(counts.sum(axis=-1, keepdims=True), counts.shape))


def under_triage(counts: Floats) -> Floats:
    """P(predicted milder | actual) of each class but the mildest: (..., K - 1)."""
    milder: Floats = np.tril(row_shares(counts), k=-1).sum(axis=-1)
    return milder[..., 1:]


def custom_precision(counts: Floats, weights_KK: Floats) -> Floats:
    """Mean over classes of TP / (TP + weighted false positives).

    A class that is never predicted counts 0, one that has no images either does not count.
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    off_diagonal_KK = np.where(np.eye(len(weights_KK), dtype=bool), 0.0, weights_KK)
    false_positives = np.einsum("...ap,pa->...p", counts, off_diagonal_KK)
    return defined_mean(share_of_found(hits, hits + false_positives, counts))


def expected_cost(counts: Floats, costs_KK: Floats) -> Floats:
    """Mean cost of a decision."""
    return ratio((counts * costs_KK).sum(axis=(-2, -1)), counts.sum(axis=(-2, -1)))


def quadratic_kappa(counts: Floats) -> Floats:
    """Cohen's kappa with weights that grow with the squared distance (Cohen 1968).

    NaN where chance alone would agree always.
    """
    places = np.arange(counts.shape[-1])
    weights_KK = (places[:, None] - places).astype(np.float64) ** 2
    rows, columns = counts.sum(axis=-1), counts.sum(axis=-2)
    by_chance = np.einsum("...a,ap,...p->...", rows, weights_KK, columns)
    total = counts.sum(axis=(-2, -1))
    return 1 - ratio((counts * weights_KK).sum(axis=(-2, -1)) * total, by_chance)
