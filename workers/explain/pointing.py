"""What a heat map lies on: the pointing game, and the share of the heat inside a region.

Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016 (the pointing game, here
without its tolerance of 15 pixels); Wang et al., "Score-CAM", CVPRW 2020 (the energy-based one).
"""

from dataclasses import dataclass

import numpy as np

from workers.explain.mapping import Floats, Mask, Placement


@dataclass(frozen=True)
class Finding:
    """The figures of one heat map; None where there is no heat, or no region."""

    peak_x: float | None
    """The middle of the hottest cell that lies on the image, in pixels of the original."""
    peak_y: float | None
    energy_padding: float | None
    """Share of all heat that lies outside the image, on the padding of the input."""
    energy_inside: float | None
    """Share of the image's heat that lies inside the region."""
    pointing_hit: bool | None
    """Whether the peak lies inside the region."""
    region_share: float | None
    """Share of the image inside the region, as far as the network saw both: what even heat has."""


def find(heat_hw: Floats, placement: Placement, region_HW: Mask | None) -> Finding:
    """Measure a heat map (h, w) against a region of the original (H, W).

    A region without a pixel is none: where there is nothing to point at, nothing can be missed.
    """
    seen, heat = placement.seen(), placement.heat_on_input(heat_hw).astype(np.float64)
    total, on_image = float(heat.sum()), float((heat * seen).sum())
    peak = _peak(heat_hw, placement)
    region = region_HW if region_HW is not None and region_HW.any() else None
    inside = None if region is None else placement.to_input(region)
    return Finding(
        peak_x=peak[0] if peak else None,
        peak_y=peak[1] if peak else None,
        energy_padding=_share(total - on_image, total),
        energy_inside=None if inside is None else _share(float((heat * inside).sum()), on_image),
        pointing_hit=None
        if region is None or peak is None
        else bool(region[int(peak[1]), int(peak[0])]),
        region_share=None if inside is None else _share(float(inside.sum()), float(seen.sum())),
    )


def _share(part: float, whole: float) -> float | None:
    """A share, kept within 0 and 1 whatever rounding did; none of nothing."""
    return min(max(part / whole, 0.0), 1.0) if whole > 0 else None


def _peak(heat_hw: Floats, placement: Placement) -> tuple[float, float] | None:
    """The middle of the hottest cell whose middle lies on the image: x, y.

    Between cells heat is linear, so it is nowhere hotter than in a cell's middle.
    """
    y, x = placement.cell_middles(*heat_hw.shape)
    on_y, on_x = (y >= 0) & (y < placement.height), (x >= 0) & (x < placement.width)
    hottest = np.where(np.outer(on_y, on_x), heat_hw, 0)
    row, column = np.unravel_index(int(hottest.argmax()), hottest.shape)
    return (float(x[column]), float(y[row])) if hottest[row, column] > 0 else None
