"""All figures of a classifier on one set of images, with intervals over patients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.bundle import OperatingPoint
from workers.metrics import confusion as matrices
from workers.metrics.bootstrap import interval, patient_weights
from workers.metrics.scores import class_auc, macro_auc, weighted_aucs
from workers.models.classifier.outputs import predicted

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """One figure; ``category`` names its class, or ``actual|predicted`` in a confusion matrix."""

    metric: str
    category: str | None
    value: float
    interval: tuple[float, float] | None
    n: int


@dataclass(frozen=True)
class Scored:
    """Images with their scores and what they are."""

    classes: tuple[str, ...]
    actual_N: NDArray[np.int64]
    scores_NC: NDArray[np.float32]
    groups: Sequence[str]
    """Each image's patient."""

    def __len__(self) -> int:
        return len(self.actual_N)


Key = tuple[str, str | None]


def classification_figures(
    scored: Scored, point: OperatingPoint | None, *, resamples: int = 0, seed: int = 0
) -> list[Figure]:
    """Accuracy, AUC, confusion, precision, recall, F1, sensitivity and specificity.

    Figures over labels use the operating point where there is one, else the likeliest class.
    Figures that the images leave undefined (an AUC of one class) are left out.
    """
    labels_N = predicted(scored.scores_NC, scored.classes, point)
    counts = matrices.confusion(scored.actual_N, labels_N, len(scored.classes))
    values = _from_counts(counts.astype(np.float64), scored.classes, point) | _aucs(scored)
    draws = _resampled(scored, labels_N, point, (resamples, seed)) if resamples else {}
    figures = [
        Figure(metric, category, float(value), _interval(draws, (metric, category)), len(scored))
        for (metric, category), value in values.items()
        if not np.isnan(value)
    ]
    for row, actual in enumerate(scored.classes):
        for column, label in enumerate(scored.classes):
            value = float(counts[row, column])
            figures.append(Figure("confusion", f"{actual}|{label}", value, None, len(scored)))
    if point is not None:
        figures.append(Figure("threshold", point.positive, point.threshold, None, len(scored)))
    return figures


def _from_counts(
    counts: Floats, classes: Sequence[str], point: OperatingPoint | None
) -> dict[Key, Floats]:
    """Figures of matrices (..., C, C); each value has the leading shape. None means the mean."""
    values: dict[Key, Floats] = {("accuracy", None): matrices.accuracy(counts)}
    by_class: dict[str, Callable[[Floats], Floats]] = {
        "precision": matrices.precision,
        "recall": matrices.recall,
        "f1": matrices.f1,
    }
    for metric, compute in by_class.items():
        found = compute(counts)
        values[metric, None] = found.mean(axis=-1)
        for index, name in enumerate(classes):
            values[metric, name] = found[..., index]
    if point is not None and len(classes) == 2:
        positive = list(classes).index(point.positive)
        values["sensitivity", point.positive] = matrices.sensitivity(counts, positive)
        values["specificity", point.positive] = matrices.specificity(counts, positive)
    return values


def _aucs(scored: Scored) -> dict[Key, Floats]:
    values: dict[Key, Floats] = {
        ("auc", None): np.asarray(macro_auc(scored.actual_N, scored.scores_NC))
    }
    if len(scored.classes) > 2:
        for index, name in enumerate(scored.classes):
            auc = class_auc(scored.actual_N, scored.scores_NC[:, index], index)
            values["auc", name] = np.asarray(auc)
    return values


def _resampled(
    scored: Scored,
    labels_N: NDArray[np.int64],
    point: OperatingPoint | None,
    draws: tuple[int, int],
) -> dict[Key, Floats]:
    classes = scored.classes
    chunks: list[dict[Key, Floats]] = []
    for weights_RN in patient_weights(scored.groups, *draws):
        counts = matrices.weighted_confusions(scored.actual_N, labels_N, len(classes), weights_RN)
        values = _from_counts(counts, classes, point)
        if len(classes) == 2:
            values["auc", None] = weighted_aucs(
                scored.actual_N == 1, scored.scores_NC[:, 1], weights_RN
            )
        else:
            for index, name in enumerate(classes):
                values["auc", name] = weighted_aucs(
                    scored.actual_N == index, scored.scores_NC[:, index], weights_RN
                )
            values["auc", None] = np.mean([values["auc", name] for name in classes], axis=0)
        chunks.append(values)
    return {key: np.concatenate([chunk[key] for chunk in chunks]) for key in chunks[0]}


def _interval(draws: dict[Key, Floats], key: Key) -> tuple[float, float] | None:
    return interval(draws[key]) if key in draws else None
