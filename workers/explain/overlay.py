"""Pictures of heat maps: the grey image, coloured by heat, its region outlined."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from workers.explain.mapping import Floats, Mask

View = NDArray[np.uint8]

LONGEST_PX = 1024
"""Longest side of a picture; larger originals are shrunk to it."""
_OUTLINE_BGR = (0, 255, 0)
_PEAK_BGR = (255, 255, 255)
_TEXT_BGR = (255, 255, 255)
_LINE_PX = 18
"""Height of a line of text below the picture."""
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.42
_HOTTEST = 225
"""Place on the colour map of the hottest pixel: beyond it red grows as dark as the cold end."""
_QUALITY = 90


@dataclass(frozen=True)
class Canvas:
    """The original at the size it is drawn at."""

    grey_HW: View
    outline: tuple[NDArray[np.int32], ...] = ()
    """The region's borders as OpenCV's contours."""


def make_canvas(grey_HW: View, region_HW: Mask | None) -> Canvas:
    """Shrink a grey image (H, W) and its region to what is drawn."""
    height, width = grey_HW.shape
    factor = min(1.0, LONGEST_PX / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    shown, region = grey_HW, None if region_HW is None else region_HW.astype(np.uint8)
    if size != (width, height):
        shown = np.asarray(cv2.resize(grey_HW, size, interpolation=cv2.INTER_AREA), np.uint8)
        if region is not None:
            region = np.asarray(cv2.resize(region, size, interpolation=cv2.INTER_NEAREST))
    if region is None:
        return Canvas(shown)
    borders, _ = cv2.findContours(region, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return Canvas(shown, tuple(np.asarray(one, np.int32) for one in borders))


def draw(
    canvas: Canvas, heat_HW: Floats, opacity: float, peak_xy: tuple[float, float] | None
) -> View:
    """Return the picture (H, W, 3) BGR of a heat map of 0-1 over a canvas of its size.

    ``peak_xy`` is marked by a ring; its coordinates are those of the canvas.
    """
    level = np.rint(np.clip(heat_HW, 0, 1) * _HOTTEST).astype(np.uint8)
    colours = cv2.applyColorMap(level, cv2.COLORMAP_TURBO)
    plain = cv2.cvtColor(canvas.grey_HW, cv2.COLOR_GRAY2BGR)
    picture = np.asarray(cv2.addWeighted(colours, opacity, plain, 1 - opacity, 0), np.uint8)
    thick = max(1, round(max(picture.shape) / 400))
    cv2.drawContours(picture, list(canvas.outline), -1, _OUTLINE_BGR, thick)
    if peak_xy is not None:
        centre = round(peak_xy[0]), round(peak_xy[1])
        cv2.circle(picture, centre, 4 * thick + 2, _PEAK_BGR, thick, cv2.LINE_AA)
    return picture


def captioned(picture: View, lines: tuple[str, ...]) -> View:
    """Add lines of text below a picture, which keeps its pixels; what is not ASCII shows as ?."""
    shown = [part for line in lines for part in _wrapped(line, picture.shape[1] - 6)]
    strip = np.zeros((_LINE_PX * len(shown) + 4, picture.shape[1], 3), np.uint8)
    for number, line in enumerate(shown):
        place = 3, _LINE_PX * (number + 1) - 4
        cv2.putText(strip, line, place, _FONT, _FONT_SCALE, _TEXT_BGR, 1, cv2.LINE_AA)
    return np.concatenate([picture, strip])


def _wrapped(line: str, width: int) -> list[str]:
    """A line in as many as fit the width in pixels; a word that does not fit stands alone."""
    lines = [""]
    for word in line.encode("ascii", "replace").decode().split():
        longer = f"{lines[-1]} {word}".strip()
        (taken, _), _ = cv2.getTextSize(longer, _FONT, _FONT_SCALE, 1)
        if taken <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def encode(picture: View) -> bytes:
    """A picture (H, W, 3) BGR as JPEG, colours at full resolution."""
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        _QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    return bytes(cv2.imencode(".jpg", picture, options)[1].tobytes())
