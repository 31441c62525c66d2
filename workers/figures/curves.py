"""ROC and precision-recall curves."""

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from schemas.bundle import OperatingPoint
from workers.figures.canvas import CHANCE, COLOURS, new_axes, unit_square
from workers.metrics.classification import Scored
from workers.metrics.scores import judged_places

Judged = tuple[str, NDArray[np.bool_], NDArray[np.float32]]
"""A class, which images have it, and its score of each."""


def judged_classes(scored: Scored, point: OperatingPoint | None) -> list[Judged]:
    """Classes that have a curve: those with images on both sides.

    Of two classes it is the positive one, the operating point's or the second: the other's curve
    says the same.
    """
    found = []
    for place in judged_places(scored.classes, point):
        is_class_N = scored.actual_N == place
        if is_class_N.any() and not is_class_N.all():
            found.append((scored.classes[place], is_class_N, scored.scores_NC[:, place]))
    return found


def roc_axes(scored: Scored, point: OperatingPoint | None) -> Axes:
    """ROC curves, one class against the rest, with the operating point."""
    axes = new_axes()
    axes.plot([0, 1], [0, 1], color=CHANCE, linestyle="--", linewidth=1)
    for (name, truth_N, scores_N), colour in _coloured(scored, point):
        false_share, true_share, _ = roc_curve(truth_N, scores_N, drop_intermediate=False)
        label = f"{name}: AUC {roc_auc_score(truth_N, scores_N):.3f}"
        axes.plot(false_share, true_share, color=colour, label=label)
        if point is not None and len(scored.classes) == 2:
            called_N = scores_N.astype(np.float64) >= point.threshold
            place = (called_N[~truth_N].mean(), called_N[truth_N].mean())
            _mark(axes, place, point)
    unit_square(axes, "ROC", "1 - specificity", "sensitivity")
    axes.legend(loc="lower right")
    return axes


def precision_recall_axes(scored: Scored, point: OperatingPoint | None) -> Axes:
    """Precision-recall curves, one class against the rest, with the operating point.

    A dashed line shows each class's share: the precision of a model that knows nothing.
    """
    axes = new_axes()
    for (name, truth_N, scores_N), colour in _coloured(scored, point):
        precisions, recalls, _ = precision_recall_curve(truth_N, scores_N)
        label = f"{name}: AP {average_precision_score(truth_N, scores_N):.3f}"
        axes.plot(recalls, precisions, color=colour, label=label, drawstyle="steps-post")
        axes.axhline(float(truth_N.mean()), color=colour, linestyle="--", linewidth=1)
        if point is not None and len(scored.classes) == 2:
            called_N = scores_N.astype(np.float64) >= point.threshold
            if called_N.any():
                _mark(axes, (called_N[truth_N].mean(), truth_N[called_N].mean()), point)
    unit_square(axes, "Precision and recall", "recall", "precision")
    axes.legend(loc="lower left")
    return axes


def _coloured(scored: Scored, point: OperatingPoint | None) -> Iterator[tuple[Judged, str]]:
    for place, judged in enumerate(judged_classes(scored, point)):
        yield judged, COLOURS[place % len(COLOURS)]


def _mark(axes: Axes, place: tuple[float, float], point: OperatingPoint) -> None:
    label = f"threshold {point.threshold:.3g}"
    axes.plot(*place, "o", color="#000000", markersize=6, label=label, clip_on=False)
