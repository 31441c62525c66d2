"""Blue and yellow scale bars at the margin of ultrasound images: found, and painted over.

A scale bar is a straight ruler parallel to a side of the image: a thin continuous line, with or
without ticks, or a row of ticks or dots of equal spacing. It stands outside the sector, on the
screen's black. Doppler flow and its region of interest, calipers and the dotted lines between
them lie inside the sector; coloured texts have neither a continuous line nor equal thin marks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from workers.pixels.colour import Mask, brightest, colour_masks, grey
from workers.pixels.sector import find_sector

Box = tuple[int, int, int, int]
"""x, y, width, height in pixels."""

_MIN_LENGTH_SHARE = 0.2
"""A bar's length as a share of the image's side along it."""
_MAX_THICKNESS_SHARE = 0.08
"""A bar's thickness, ticks included, as a share of the image's side across it."""
_MAX_LINE_SHARE = 0.015
"""Thickness of a bar's line, without ticks, as a share of the same."""
_MIN_ELONGATION = 4.0
_MIN_LINE_COVER = 0.85
"""Share of its length over which a bar's line is continuous."""
_MIN_TICKS = 5
_MAX_TICK_DUTY = 0.4
"""Thickness of a tick by the spacing of ticks; letters fill more."""
_MAX_SPACING_SPREAD = 0.15
"""Standard deviation of the spacing of ticks by its mean."""
_DARK = 24
"""Grey level up to which a pixel is the screen's black, JPEG's ringing included."""
_MIN_DARK_SHARE = 0.8
"""Dark share of what surrounds a bar."""
_FRINGE = 2
"""Pixels around a bar that carry a trace of its colour: antialiasing, JPEG's coarse chroma."""


@dataclass(frozen=True)
class ScaleBar:
    """One scale bar."""

    colour: str
    """`blue` or `yellow`."""
    box: Box


@dataclass(frozen=True)
class ScaleBars:
    """The scale bars of one image."""

    bars: tuple[ScaleBar, ...]
    mask: Mask
    """(H, W), true on the bars and their fringe, outside the sector."""

    @property
    def share(self) -> float:
        """Share of the image's pixels that the bars cover and removal changes."""
        return float(self.mask.mean()) if self.mask.size else 0.0


def detect_scale_bars(view: NDArray[np.uint8]) -> ScaleBars:
    """Find the scale bars of an (H, W, 3) uint8 RGB view; a grey one (H, W) has none."""
    nothing = np.zeros(view.shape[:2], np.bool_)
    hues = colour_masks(view)
    sector = find_sector(view) if hues else None
    if sector is None:
        return ScaleBars((), nothing)
    black = grey(view) <= _DARK
    bars: list[ScaleBar] = []
    core = nothing.copy()
    for colour, coloured in hues.items():
        hue = coloured & ~sector.mask
        for box in _rulers(hue):
            if _stands_on_black(box, hue, black):
                bars.append(ScaleBar(colour, box))
                region = _region(box)
                core[region] |= hue[region]
    mask = _with_fringe(core, view, bars) & ~sector.mask if bars else core
    return ScaleBars(tuple(bars), mask)


def remove_scale_bars(view: NDArray[np.uint8], found: ScaleBars) -> NDArray[np.uint8]:
    """Return the view with its scale bars painted in the level of the black around them.

    Pixels outside `found.mask`, those of the sector among them, stay as they are.
    """
    if not found.bars:
        return view
    around = cv2.dilate(found.mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(np.bool_)
    around &= ~found.mask & (grey(view) <= _DARK)
    cleared = view.copy()
    level = np.median(view[around], axis=0) if around.any() else 0
    cleared[found.mask] = np.asarray(level).astype(np.uint8)
    return cleared


def _rulers(mask: Mask) -> Iterator[Box]:
    """Yield the boxes of vertical rulers, then of horizontal ones."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    if not width:
        return
    found = np.ascontiguousarray(mask[top : top + height, left : left + width])
    sides = (mask.shape[0], mask.shape[1])
    for x, y, wide, tall in _vertical_rulers(found, sides):
        yield left + x, top + y, wide, tall
    for y, x, tall, wide in _vertical_rulers(np.ascontiguousarray(found.T), sides[::-1]):
        yield left + x, top + y, wide, tall


def _vertical_rulers(mask: Mask, sides: tuple[int, int]) -> Iterator[Box]:
    """Yield the boxes of rulers in a part of an image whose height and width are `sides`."""
    height, width = sides
    if len(mask) < _shortest(height):
        return
    # Ticks of a row belong together when the gap is at most an eighth of the image.
    reach = height // 8 + 1
    padded = cv2.copyMakeBorder(
        mask.astype(np.uint8), reach, reach, 0, 0, cv2.BORDER_CONSTANT, value=0
    )
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, np.ones((reach | 1, 1), np.uint8))
    joined = closed[reach:-reach]
    count, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    for label in range(1, count):
        left, top, wide, tall = (int(value) for value in stats[label, :4])
        thin = wide <= _MAX_THICKNESS_SHARE * width and tall >= _MIN_ELONGATION * wide
        if not (thin and tall >= _shortest(height)):
            continue
        region = _region((left, top, wide, tall))
        own = mask[region] & (labels[region] == label)
        if _has_line(own, width) or _has_ticks(own):
            yield left, top, wide, tall


def _shortest(side: int) -> float:
    return max(16, _MIN_LENGTH_SHARE * side)


def _has_line(bar: Mask, image_width: int) -> bool:
    """Tell whether a thin line is marked almost all the way down.

    Two columns side by side count as one. Ticks stand in few rows, so the median row tells the
    line's thickness; the colour legend of Doppler flow is a filled strip, several times as wide.
    """
    pairs = bar[:, :-1] | bar[:, 1:] if bar.shape[1] > 1 else bar
    thickness = float(np.median(bar.sum(axis=1)))
    thin = thickness <= max(4, _MAX_LINE_SHARE * image_width)
    return thin and float(pairs.mean(axis=0).max()) >= _MIN_LINE_COVER


def _has_ticks(bar: Mask) -> bool:
    """Tell whether the marks are thin and equally spaced along the bar."""
    marked = np.concatenate([[False], bar.any(axis=1), [False]]).astype(np.int8)
    starts, ends = np.flatnonzero(np.diff(marked) == 1), np.flatnonzero(np.diff(marked) == -1)
    if len(starts) < _MIN_TICKS:
        return False
    spacing = np.diff((starts + ends) / 2)
    thickness = float((ends - starts).max())
    even = float(spacing.std()) <= max(_MAX_SPACING_SPREAD * float(spacing.mean()), 0.8)
    return even and thickness <= _MAX_TICK_DUTY * float(spacing.mean())


def _stands_on_black(box: Box, hue: Mask, black: Mask) -> bool:
    x, y, width, height = box
    margin = 2 * _FRINGE
    region = _region((x - margin, y - margin, width + 2 * margin, height + 2 * margin))
    own = cv2.dilate(hue[region].astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_)
    around = black[region][~own]
    return bool(around.size) and float(around.mean()) >= _MIN_DARK_SHARE


def _with_fringe(core: Mask, view: NDArray[np.uint8], bars: list[ScaleBar]) -> Mask:
    """Add what is lit and joined to a bar: JPEG leaves thin ticks grey, and halos around."""
    side = 2 * _FRINGE + 1
    mask = cv2.dilate(core.astype(np.uint8), np.ones((side, side), np.uint8)).astype(np.bool_)
    lit = brightest(view) > 0
    mask &= lit
    for bar in bars:
        x, y, width, height = bar.box
        reach = min(width, height) + side
        region = _region((x - reach, y - reach, width + 2 * reach, height + 2 * reach))
        bright = (lit[region] & (grey(view[region]) > _DARK)) | core[region]
        _, labels = cv2.connectedComponents(bright.astype(np.uint8), connectivity=8)
        touching = np.unique(labels[core[region]])
        mask[region] |= np.isin(labels, touching[touching > 0])
    return mask


def _region(box: Box) -> tuple[slice, slice]:
    x, y, width, height = box
    return slice(max(y, 0), y + height), slice(max(x, 0), x + width)
