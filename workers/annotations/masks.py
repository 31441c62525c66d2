"""Black and white pictures of lesions: what is inside, whether they fit, and the boxes around."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.pixels.pixels import Pixels

Mask = NDArray[np.bool_]

_ASPECT = 0.02
"""How far a mask's aspect ratio may differ from its image's: rounding of a smaller copy."""


@dataclass(frozen=True)
class MaskBox:
    """A box around pixels of a mask, in px from edge to edge."""

    x: int
    y: int
    w: int
    h: int
    area: int
    """Pixels of the mask inside the box, px²."""


def inside(pixels: Pixels) -> Mask:
    """Return which pixels of a mask are inside: its white ones, or all labels of a label map.

    White is at least half of what the file's samples can hold. A file without any white is a label
    map, in which all but 0 is inside, and so is one whose grey levels fill areas on a background
    of 0: labels 60 and 200 are labels both. Grey that only lines white areas is a soft edge, or
    the noise of a lossy encoding. Samples count as stored, whatever window the file has.
    """
    level_HW, half = _levels(pixels)
    white_HW = level_HW >= half
    grey_HW = (level_HW > 0) & ~white_HW
    if not white_HW.any() or _are_labels(level_HW, grey_HW):
        return level_HW > 0
    return white_HW


def _levels(pixels: Pixels) -> tuple[NDArray[Any], float]:
    """The brightest channel of each pixel, 0 where it is black, and half of the range."""
    level_HW = pixels.array
    if level_HW.ndim == 3:  # over its last axis, NumPy's `max` takes ten times as long
        level_HW = np.maximum.reduce([level_HW[..., channel] for channel in range(3)])
    if level_HW.dtype.kind == "u":
        top = 2**pixels.bits - 1
        return (top - level_HW if pixels.inverted else level_HW), (top + 1) / 2
    # Signed and rescaled samples have no range of their own: it is that of the values.
    level_HW = np.multiply(level_HW, -1 if pixels.inverted else 1, dtype=np.float64)
    known_HW = np.isfinite(level_HW)
    black = min(float(level_HW[known_HW].min(initial=0)), 0.0)
    level_HW = np.where(known_HW, level_HW - black, 0)
    return level_HW, float(level_HW.max(initial=0)) / 2 or 1.0


def _are_labels(level_HW: NDArray[Any], grey_HW: Mask) -> bool:
    """Whether most of the grey levels are labels: most of a level's pixels lie in areas of it.

    A soft edge rises through its levels, and noise jumps between them, so that few of them fill a
    square of 2 x 2 pixels anywhere.
    """
    if not grey_HW.any() or (level_HW > 0).all():
        return False
    corner_HW = level_HW[:-1, :-1]
    square_HW = (
        (corner_HW == level_HW[:-1, 1:])
        & (corner_HW == level_HW[1:, :-1])
        & (corner_HW == level_HW[1:, 1:])
    )
    around_HW = np.pad(square_HW, 1)
    area_HW = around_HW[:-1, :-1] | around_HW[:-1, 1:] | around_HW[1:, :-1] | around_HW[1:, 1:]
    _, number, counts = np.unique(level_HW[grey_HW], return_inverse=True, return_counts=True)
    filled = np.bincount(number, weights=area_HW[grey_HW])
    return bool((filled >= counts / 2).mean() > 0.5)


def fitted(mask_HW: Mask, height: int, width: int) -> Mask:
    """Return a mask in the pixels of its image, which is upright.

    A mask of another size is resized with nearest neighbours where its aspect ratio is that of the
    image within 2 %; so a copy made smaller fits, and one that lies on its side does not.

    Raises:
        RejectedImage: `size_mismatch` if it is of another shape.
    """
    if mask_HW.shape == (height, width):
        return mask_HW
    found, wanted = mask_HW.shape[1] / mask_HW.shape[0], width / height
    if abs(found / wanted - 1) > _ASPECT:
        raise RejectedImage(
            RejectReason.SIZE_MISMATCH,
            f"its mask is {mask_HW.shape[1]} x {mask_HW.shape[0]}, the image {width} x {height}",
        )
    size = (width, height)
    enlarged = cv2.resize(mask_HW.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(enlarged, np.bool_)


def mask_boxes(mask_HW: Mask, *, components: bool, min_pixels: int = 1) -> list[MaskBox]:
    """Boxes around a mask, or around each of its connected components, by y and x.

    Pixels that touch at a corner are connected. What has fewer than ``min_pixels`` leaves no box.
    """
    labels_HW = mask_HW.astype(np.uint8)
    if components:
        _, _, found, _ = cv2.connectedComponentsWithStats(labels_HW, connectivity=8)
        stats = np.asarray(found)[1:]  # the first one is the background
    else:
        stats = np.array([[*cv2.boundingRect(labels_HW), int(mask_HW.sum())]])
    boxes = [MaskBox(*(int(value) for value in one)) for one in stats]
    return sorted(
        (one for one in boxes if one.area >= min_pixels), key=lambda one: (one.y, one.x, one.h)
    )
