"""Which pixels of a view are coloured, and with which hue."""

import cv2
import numpy as np
from numpy.typing import NDArray

MIN_CHROMA = 40
"""Difference of the largest and smallest channel (0-255) from which a pixel counts as coloured.

JPEG stores grey images as YCbCr, and what comes back differs between channels by a few levels.
"""

Mask = NDArray[np.bool_]

_HUES_DEGREES = {"blue": (195.0, 265.0), "yellow": (35.0, 75.0)}
"""Hue ranges of scale bars. Doppler's red and orange end at 35, its cyan at 195."""


def chroma(view: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Return largest minus smallest channel of an (H, W, 3) view, None for a grey one (H, W)."""
    if view.ndim == 2:
        return None
    red, green, blue = cv2.split(view)
    low = cv2.min(cv2.min(red, green), blue)
    return np.asarray(cv2.subtract(brightest(view), low), np.uint8)


def brightest(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the largest channel of an (H, W, 3) view. NumPy takes ten times as long."""
    red, green, blue = cv2.split(view)
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)


def coloured(view: NDArray[np.uint8]) -> Mask | None:
    """Return the mask of coloured pixels, None where there are none."""
    found = chroma(view)
    if found is None or int(found.max(initial=0)) < MIN_CHROMA:
        return None
    return found >= MIN_CHROMA


def colour_masks(view: NDArray[np.uint8]) -> dict[str, Mask]:
    """Return the masks of `blue` and of `yellow` pixels of an RGB view that has coloured ones."""
    strong = coloured(view)
    if strong is None:
        return {}
    # Few pixels are coloured as a rule, so only these are converted.
    hsv = cv2.cvtColor(view[strong][:, None], cv2.COLOR_RGB2HSV_FULL)
    degrees = hsv[:, 0, 0].astype(np.float32) * (360 / 256)
    masks = {}
    for colour, (low, high) in _HUES_DEGREES.items():
        chosen = (degrees >= low) & (degrees <= high)
        if chosen.any():
            masks[colour] = np.zeros(view.shape[:2], np.bool_)
            masks[colour][strong] = chosen
    return masks


def grey(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the luma (H, W) of a view; a grey one is returned as it is."""
    if view.ndim == 2:
        return view
    return np.asarray(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), np.uint8)
