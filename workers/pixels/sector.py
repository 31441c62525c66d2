"""Where the ultrasound sector lies among the texts, rulers and black margins of a screen."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from workers.pixels.colour import Mask, coloured, grey

_LIT = 4
"""Grey level above which a pixel is not the black of the screen."""
_WINDOW_SHARE = 1 / 28
"""Side of the neighbourhood that decides, as a share of the image's shorter side. It is larger
than a letter, so that a line of text, mostly black, is no part of the sector."""
_DENSITY = 0.5
"""Lit share of that neighbourhood inside the sector; on a straight border it is one half."""
_MIN_SHARE = 0.05
"""Share of the image that the sector covers at least."""


@dataclass(frozen=True)
class Sector:
    """The convex hull of the image proper."""

    mask: Mask
    """(H, W), true inside."""
    box: tuple[int, int, int, int]
    """x, y, width, height in pixels."""


def find_sector(view: NDArray[np.uint8]) -> Sector | None:
    """Find the sector of a view, (H, W) or (H, W, 3): its largest dense lit region.

    The hull covers a sector's shadows and dark depth as far as its outline shows. Returns None
    where no region covers a twentieth of the image.
    """
    lit = grey(view) > _LIT
    colours = coloured(view)
    if colours is not None:
        lit &= ~colours
    height, width = lit.shape
    side = max(3, round(min(height, width) * _WINDOW_SHARE)) | 1
    density = cv2.blur(lit.astype(np.float32), (side, side), borderType=cv2.BORDER_REPLICATE)
    dense = (density >= _DENSITY - 1e-3).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(dense, connectivity=4)
    if count < 2:
        return None
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    if stats[largest, cv2.CC_STAT_AREA] < _MIN_SHARE * height * width:
        return None
    outline, _ = cv2.findContours(
        (labels == largest).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    hull = cv2.convexHull(np.concatenate(list(outline)))
    mask = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(mask, hull, 1)
    x, y, box_width, box_height = cv2.boundingRect(hull)
    return Sector(mask.astype(np.bool_), (x, y, box_width, box_height))
