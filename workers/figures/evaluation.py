"""The pictures of an evaluation."""

from collections.abc import Mapping

from schemas.bundle import OperatingPoint
from workers.figures.canvas import house_style, to_png
from workers.figures.curves import judged_classes, precision_recall_axes, roc_axes
from workers.figures.matrix import confusion_axes
from workers.figures.reliability import reliability_axes
from workers.metrics.classification import Scored
from workers.metrics.confusion import confusion
from workers.models.classifier.outputs import predicted


def draw_evaluation(scored: Scored, point: OperatingPoint | None) -> Mapping[str, bytes]:
    """PNG bytes by name: ROC, precision and recall, reliability, confusion.

    Equal images and an equal operating point give equal bytes. Without a class that has images on
    both sides there are no curves.
    """
    labels_N = predicted(scored.scores_NC, scored.classes, point)
    counts_CC = confusion(scored.actual_N, labels_N, len(scored.classes))
    with house_style():
        pictures = {
            "reliability.png": to_png(reliability_axes(scored)),
            "confusion.png": to_png(confusion_axes(counts_CC, scored.classes)),
        }
        if judged_classes(scored, point):
            pictures["roc.png"] = to_png(roc_axes(scored, point))
            pictures["precision-recall.png"] = to_png(precision_recall_axes(scored, point))
    return pictures
