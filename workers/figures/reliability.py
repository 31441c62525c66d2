"""The reliability diagram: what the model claimed and what came true."""

import numpy as np
from matplotlib.axes import Axes

from workers.figures.canvas import CHANCE, COLOURS, new_axes, unit_square
from workers.metrics.classification import Scored
from workers.metrics.reliability import BINS, winning_bins


def reliability_axes(scored: Scored) -> Axes:
    """Accuracy by winning probability in bins (Guo et al. 2017), and the images of each bin."""
    bins = winning_bins(scored.actual_N, scored.scores_NC)
    filled = bins.count_B > 0
    claimed_B = bins.claimed_B[filled] / bins.count_B[filled]
    came_true_B = bins.came_true_B[filled] / bins.count_B[filled]
    axes = new_axes()
    left_B = np.arange(BINS) / BINS
    share_B = bins.count_B / bins.count_B.sum()
    axes.bar(left_B, share_B, 1 / BINS, align="edge", color="#cccccc", label="share of the images")
    axes.plot([0, 1], [0, 1], color=CHANCE, linestyle="--", linewidth=1)
    axes.plot(claimed_B, came_true_B, "o-", color=COLOURS[0], label=f"ECE {bins.error:.3f}")
    unit_square(axes, "Reliability", "winning probability", "share that is right")
    axes.legend(loc="upper left")
    return axes
