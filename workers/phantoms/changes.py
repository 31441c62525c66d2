"""What happens to a drawn phantom afterwards: tiny changes of a near-duplicate, and flaws."""

import functools
from dataclasses import replace
from enum import StrEnum

import cv2
import numpy as np

from workers.phantoms.frame import Box, Frame
from workers.phantoms.noise import Array


class Flaw(StrEnum):
    """Why an image that can be read should not be used."""

    SMALL = "small"
    DARK = "dark"
    BLURRED = "blurred"
    BLANK = "blank"


SMALL_SHARE = 0.3
"""Size of a small image as a share of the usual one."""


def nearly(frame: Frame, rng: np.random.Generator) -> Frame:
    """The frame up to two grey levels brighter or darker, moved by one or two pixels."""
    levels = float(rng.choice([-2.0, -1.0, 1.0, 2.0])) * frame.grey_step
    step = 2 if rng.random() < 0.15 else 1
    right, down = ((step, 0), (-step, 0), (0, step), (0, -step))[rng.integers(4)]
    moved = frame.moved(functools.partial(_shifted, right=right, down=down))
    bar = moved.scale_bar
    if bar is not None:
        box = _moved_box(bar.box, (right, down), frame.pixels.shape)
        moved = replace(moved, scale_bar=replace(bar, box=box))
    return replace(moved, pixels=_brighter(moved.pixels, levels))


def flawed(frame: Frame, flaw: Flaw, rng: np.random.Generator) -> Frame:
    """The frame with a flaw; small images are drawn small and pass through unchanged."""
    if flaw is Flaw.DARK:
        floor = float(frame.pixels.min())
        dim = floor + (frame.pixels.astype(np.float32) - floor) * rng.uniform(0.005, 0.02)
        return replace(frame, pixels=dim.astype(frame.pixels.dtype), scale_bar=None)
    if flaw is Flaw.BLURRED:
        sigma = frame.pixels.shape[1] * rng.uniform(0.018, 0.03)
        blurred = cv2.GaussianBlur(frame.pixels, (0, 0), sigma)
        return replace(frame, pixels=blurred, scale_bar=None)
    if flaw is Flaw.BLANK:
        middle = frame.pixels.astype(np.float32).mean()
        blank = np.full_like(frame.pixels, middle)
        return replace(frame, pixels=blank, marks=(), scale_bar=None)
    return frame


def _shifted(array: Array, right: int, down: int) -> Array:
    """Move an image; the edge it leaves behind is repeated, as when a frame is cropped anew."""
    height, width = array.shape[:2]
    padded = cv2.copyMakeBorder(array, 2, 2, 2, 2, cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(padded[2 - down : 2 - down + height, 2 - right : 2 - right + width])


def _moved_box(box: Box, step: tuple[int, int], shape: tuple[int, ...]) -> Box:
    left, top = max(box.x + step[0], 0), max(box.y + step[1], 0)
    right = min(box.x + box.width + step[0], shape[1])
    bottom = min(box.y + box.height + step[1], shape[0])
    return Box(left, top, right - left, bottom - top)


def _brighter(pixels: Array, levels: float) -> Array:
    if pixels.dtype == np.uint8:
        # Black beside the sector stays black.
        changed = np.clip(pixels.astype(np.int16) + int(levels), 0, 255).astype(np.uint8)
        changed[pixels == 0] = 0
        return changed
    if pixels.dtype == np.int16:
        moved: Array = np.clip(pixels + round(levels), -1024, 3071)
        return moved
    brighter: Array = np.clip(pixels + np.float32(levels), 0, 1)
    return brighter
