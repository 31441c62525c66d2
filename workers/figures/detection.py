"""The pictures of a detector's evaluation: the confusion matrix and FROC."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from workers.figures.canvas import COLOURS, house_style, new_axes, to_png
from workers.figures.matrix import confusion_axes
from workers.metrics.froc import RATES, Curve


def draw_detection(
    matrix_MM: NDArray[np.int64], names: tuple[str, ...], curve: Curve
) -> Mapping[str, bytes]:
    """PNG bytes by name; equal figures give equal bytes.

    ``names`` are those of the matrix's rows, none first. Without a lesion there is no curve.
    """
    with house_style():
        pictures = {"confusion.png": to_png(confusion_axes(matrix_MM, names))}
        if len(curve.sensitivity_P):
            pictures["froc.png"] = to_png(froc_axes(curve))
    return pictures


def froc_axes(curve: Curve) -> Axes:
    """Sensitivity against false positives an image, these by powers of two."""
    axes = new_axes(5.5, 4.5)
    axes.step(
        np.maximum(curve.false_positives_P, RATES[0] / 2),
        curve.sensitivity_P,
        where="post",
        color=COLOURS[0],
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(RATES, [f"{rate:g}" for rate in RATES])
    axes.set(
        title="FROC",
        xlabel="false positives an image",
        ylabel="sensitivity",
        xlim=(RATES[0] / 2, RATES[-1] * 2),
        ylim=(0, 1),
    )
    axes.grid(visible=True, linewidth=0.5, alpha=0.4)
    return axes
