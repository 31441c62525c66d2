"""Black and white pictures of lesions: what is inside, whether they fit, and the boxes around."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.pixels.colour import grey
from workers.pixels.pixels import Pixels
from workers.pixels.recipe import to_uint8

Mask = NDArray[np.bool_]

_WHITE = 128
"""Grey level from which a pixel of a black and white mask is white."""
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
    """Return which pixels of a mask are inside: its white ones.

    In a mask without any white, as one of labels 1, 2, 3, all but 0 are.
    """
    level = grey(to_uint8(pixels))
    return level >= (_WHITE if int(level.max(initial=0)) >= _WHITE else 1)


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
