"""All figures of a classifier on one set of images, with intervals over patients."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from schemas.bundle import OperatingPoint
from workers.metrics import confusion as matrices
from workers.metrics.bootstrap import Patients, resampled_intervals
from workers.metrics.ratios import defined_mean
from workers.metrics.reliability import (
    calibration_error,
    class_calibration_errors,
    losses,
)
from workers.metrics.scores import Ranking, judged_places
from workers.metrics.severity import Severity, severity_values
from workers.models.classifier.outputs import predicted

Floats = NDArray[np.float64]
Key = tuple[str, str | None]


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

    def taken(self, mask_N: NDArray[np.bool_]) -> "Scored":
        """The images of a mask."""
        groups = [group for group, inside in zip(self.groups, mask_N, strict=True) if inside]
        return Scored(self.classes, self.actual_N[mask_N], self.scores_NC[mask_N], groups)


def classification_figures(
    scored: Scored,
    point: OperatingPoint | None,
    *,
    severity: Severity | None = None,
    resamples: int = 0,
    seed: int = 0,
) -> list[Figure]:
    """Every figure of a classifier; those that the images leave undefined are left out.

    Figures over labels (accuracy, confusion, precision, recall, F1, sensitivity, specificity, those
    of severity) use the operating point where there is one, else the likeliest class. A category
    of None is the mean over classes, or concerns all images; the AUC of two classes is that of the
    positive one. Errors of calibration have no interval: resampling makes them larger, so that it
    would lie beside the value.
    """
    sample = _Sample(scored, predicted(scored.scores_NC, scored.classes, point), point, severity)
    values = {key: float(value[0]) for key, value in sample.values(sample.patients.once()).items()}
    intervals = resampled_intervals(sample.values, sample.patients, resamples, seed)
    figures = [
        Figure(metric, category, value, intervals.get((metric, category)), len(scored))
        for (metric, category), value in (values | _calibration(scored)).items()
        if not np.isnan(value)
    ]
    counts = matrices.confusion(scored.actual_N, sample.labels_N, len(scored.classes))
    for row, actual in enumerate(scored.classes):
        for column, label in enumerate(scored.classes):
            value = float(counts[row, column])
            figures.append(Figure("confusion", f"{actual}|{label}", value, None, len(scored)))
    if point is not None:
        figures.append(Figure("threshold", point.positive, point.threshold, None, len(scored)))
    return figures


@dataclass(frozen=True)
class _Sample:
    """What all resamples share is computed once."""

    scored: Scored
    labels_N: NDArray[np.int64]
    point: OperatingPoint | None
    severity: Severity | None

    @cached_property
    def patients(self) -> Patients:
        return Patients.of(self.scored.groups)

    @cached_property
    def rankings(self) -> list[Ranking]:
        return class_rankings(self.scored, self.patients)

    @cached_property
    def summed(self) -> Floats:
        """By patient (G, K), what figures follow from: the confusion's cells, then the losses."""
        actual_N, classes = self.scored.actual_N, len(self.scored.classes)
        cells_NK = matrices.cells(actual_N, self.labels_N, classes)
        losses_N2 = losses(actual_N, self.scored.scores_NC)
        return self.patients.sums(np.concatenate([cells_NK, losses_N2], axis=1))

    def values(self, drawn_GR: Floats) -> dict[Key, Floats]:
        """Figures (R,) of counts of patients (G, R)."""
        classes = self.scored.classes
        sums_RK = drawn_GR.T @ self.summed
        counts_RCC = sums_RK[:, :-2].reshape(-1, len(classes), len(classes))
        values = _from_counts(counts_RCC, classes, self.point)
        if self.severity is not None:
            values |= severity_values(counts_RCC, classes, self.severity)
        images_R = counts_RCC.sum(axis=(1, 2))
        values["brier", None] = sums_RK[:, -2] / images_R
        values["nll", None] = sums_RK[:, -1] / images_R
        return values | self._areas(drawn_GR)

    def _areas(self, drawn_GR: Floats) -> dict[Key, Floats]:
        classes = self.scored.classes
        areas = [ranking.areas(drawn_GR) for ranking in self.rankings]
        aucs_RC, precisions_RC = (np.stack(both, axis=1) for both in zip(*areas, strict=True))
        # A class that is missing leaves the mean undefined: the classes' AUCs differ in height.
        values: dict[Key, Floats] = {
            ("auc", None): aucs_RC[:, judged_places(classes, self.point)].mean(axis=1),
            ("average_precision", None): precisions_RC.mean(axis=1),
        }
        for index, name in enumerate(classes):
            values["average_precision", name] = precisions_RC[:, index]
            if len(classes) > 2:  # of two classes both have the same
                values["auc", name] = aucs_RC[:, index]
        return values


def class_rankings(scored: Scored, patients: Patients) -> list[Ranking]:
    """The images sorted by each class's score."""
    return [
        Ranking.of(scored.actual_N == index, scored.scores_NC[:, index], patients)
        for index in range(len(scored.classes))
    ]


def _from_counts(
    counts: Floats, classes: Sequence[str], point: OperatingPoint | None
) -> dict[Key, Floats]:
    """Figures of matrices (..., C, C); each value has the leading shape."""
    recalls, specificities = matrices.recall(counts), matrices.specificity(counts)
    by_class = {
        "precision": matrices.precision(counts),
        "recall": recalls,
        "f1": matrices.f1(counts),
    }
    values: dict[Key, Floats] = {
        ("accuracy", None): matrices.accuracy(counts),
        ("balanced_accuracy", None): defined_mean(recalls),
    }
    for metric, found in by_class.items():
        values[metric, None] = defined_mean(found)
        for index, name in enumerate(classes):
            values[metric, name] = found[..., index]
    if len(classes) > 2:
        for index, name in enumerate(classes):
            values["specificity", name] = specificities[..., index]
    elif point is not None:
        positive = list(classes).index(point.positive)
        values["sensitivity", point.positive] = recalls[..., positive]
        values["specificity", point.positive] = specificities[..., positive]
    return values


def _calibration(scored: Scored) -> dict[Key, float]:
    actual_N, scores_NC = scored.actual_N, scored.scores_NC
    errors = class_calibration_errors(actual_N, scores_NC)
    values: dict[Key, float] = {
        ("ece", None): calibration_error(actual_N, scores_NC),
        ("classwise_ece", None): float(np.mean(errors)),
    }
    for name, error in zip(scored.classes, errors, strict=True):
        values["classwise_ece", name] = error
    return values
