"""The confusion matrix as a picture."""

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from workers.figures.canvas import new_axes
from workers.metrics.severity import row_shares

NAME_LENGTH = 24
"""Letters of a class name that are shown."""


def confusion_axes(counts_CC: NDArray[np.int64], classes: tuple[str, ...]) -> Axes:
    """Counts by actual (row) and predicted class, shaded by the share of the actual class."""
    side_in = max(4.0, 1.5 + 0.8 * len(classes))
    axes = new_axes(side_in, side_in)
    shares_CC = np.nan_to_num(row_shares(counts_CC.astype(np.float64)))
    axes.imshow(shares_CC, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts_CC.shape):
        share = shares_CC[row, column]
        axes.text(
            column,
            row,
            f"{counts_CC[row, column]:,}\n{share:.0%}",
            ha="center",
            va="center",
            color="#ffffff" if share > 0.55 else "#000000",
        )
    names = [_shortened(name) for name in classes]
    places = range(len(classes))
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, names)
    axes.set(title="Confusion", xlabel="predicted", ylabel="actual")
    return axes


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"
