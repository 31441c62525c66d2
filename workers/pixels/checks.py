"""Figures of one view that tell whether it is worth keeping, and the reasons for dropping it."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.reasons import DropReason
from workers.pixels.colour import MIN_CHROMA, chroma, grey

SHARPNESS_SIDE = 256
"""Longer side in pixels at which sharpness is measured, so that it means the same for images of
any size; smaller images are measured as they are."""


@dataclass(frozen=True)
class Measures:
    """What was measured on an 8-bit view."""

    height: int
    width: int
    brightness: float
    """Mean grey value, 0-255."""
    contrast: float
    """Standard deviation of grey values, 0-255."""
    sharpness: float
    """Variance of the Laplacian at `SHARPNESS_SIDE` by the variance of grey values there. Without
    the division it would measure contrast as much: a soft bright image beats a crisp dim one.
    Rounding to whole grey levels counts as detail, so very dim images seem sharper."""
    colour_share: float
    """Share of coloured pixels, 0-1."""


@dataclass(frozen=True)
class Thresholds:
    """What an image must reach to be kept."""

    min_side: int = 0
    """Pixels of the shorter side: 401 drops every image with a side of 400 or less."""
    min_contrast: float = 2.0
    min_brightness: float = 4.0
    min_sharpness: float = 0.0


def measure(view: NDArray[np.uint8]) -> Measures:
    """Measure a view, (H, W) or (H, W, 3) uint8 RGB."""
    levels = grey(view)
    mean, deviation = cv2.meanStdDev(levels)
    colours = chroma(view)
    coloured = 0 if colours is None else int(np.count_nonzero(colours >= MIN_CHROMA))
    height, width = levels.shape
    return Measures(
        height=height,
        width=width,
        brightness=float(mean[0, 0]),
        contrast=float(deviation[0, 0]),
        sharpness=_sharpness(levels),
        colour_share=coloured / levels.size,
    )


def drop_reason(found: Measures, limits: Thresholds) -> DropReason | None:
    """Return the first reason to drop an image, None to keep it.

    The order is: too small, blank, dark, blurred. A black image is blank rather than dark.
    """
    if min(found.height, found.width) < limits.min_side:
        return DropReason.TOO_SMALL
    if found.contrast < limits.min_contrast:
        return DropReason.BLANK
    if found.brightness < limits.min_brightness:
        return DropReason.DARK
    if found.sharpness < limits.min_sharpness:
        return DropReason.BLURRED
    return None


def _sharpness(levels: NDArray[np.uint8]) -> float:
    scale = SHARPNESS_SIDE / max(levels.shape)
    if scale < 1:
        size = (max(1, round(levels.shape[1] * scale)), max(1, round(levels.shape[0] * scale)))
        levels = np.asarray(cv2.resize(levels, size, interpolation=cv2.INTER_AREA), np.uint8)
    variance = float(cv2.meanStdDev(levels)[1][0, 0]) ** 2
    if variance == 0:
        return 0.0
    laplacian = cv2.Laplacian(levels, cv2.CV_16S, borderType=cv2.BORDER_REPLICATE)
    return float(cv2.meanStdDev(laplacian)[1][0, 0]) ** 2 / variance
