"""The region an image's heat map is measured against: masks, boxes, or both joined."""

from collections.abc import Sequence

import cv2
import numpy as np

from schemas.errors import RejectedImage
from schemas.plan import Blob
from schemas.reasons import RejectReason
from workers.explain.mapping import Mask
from workers.pixels.colour import grey
from workers.pixels.pixels import Pixels
from workers.pixels.recipe import to_uint8
from workers.reading import FrameReader

_WHITE = 128
"""Grey level from which a pixel of a black and white mask is white."""
_ASPECT = 0.02
"""How far a mask's aspect ratio may differ from its image's: rounding of a smaller copy."""


def read_region(
    masks: Sequence[Blob], boxes_n4: Sequence[Sequence[float]], height: int, width: int
) -> Mask | None:
    """Join the masks and boxes (x, y, width, height) of an image of ``height`` x ``width`` pixels.

    None where there are neither.

    Raises:
        RejectedImage: if a mask can't be read, or is of another image by its shape.
    """
    if not masks and not boxes_n4:
        return None
    region = np.zeros((height, width), np.bool_)
    for blob in masks:
        mask = FrameReader().read(blob, 0, inside)
        if isinstance(mask, RejectedImage):
            raise RejectedImage(mask.reason, f"its mask: {mask.detail}".rstrip(": "))
        region |= _fitted(mask, height, width)
    for x, y, box_width, box_height in boxes_n4:
        rows = slice(max(round(y), 0), max(round(y + box_height), 0))
        region[rows, max(round(x), 0) : max(round(x + box_width), 0)] = True
    return region


def inside(pixels: Pixels) -> Mask:
    """Return which pixels of a mask are inside: its white ones.

    In a mask without any white, as one of labels 1, 2, 3, all but 0 are.
    """
    level = grey(to_uint8(pixels))
    return level >= (_WHITE if int(level.max(initial=0)) >= _WHITE else 1)


def _fitted(mask: Mask, height: int, width: int) -> Mask:
    if mask.shape == (height, width):
        return mask
    found, wanted = mask.shape[1] / mask.shape[0], width / height
    if abs(found / wanted - 1) > _ASPECT:
        raise RejectedImage(
            RejectReason.CORRUPT,
            f"its mask is {mask.shape[1]} x {mask.shape[0]}, the image {width} x {height}",
        )
    size = (width, height)
    enlarged = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(enlarged, np.bool_)
