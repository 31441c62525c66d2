"""The region an image's heat map is measured against: masks, boxes, or both joined."""

from collections.abc import Sequence

import numpy as np

from schemas.errors import RejectedImage
from schemas.plan import Blob
from workers.annotations.masks import Mask, fitted, inside
from workers.reading import FrameReader


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
        region |= fitted(mask, height, width)
    for x, y, box_width, box_height in boxes_n4:
        rows = slice(max(round(y), 0), max(round(y + box_height), 0))
        region[rows, max(round(x), 0) : max(round(x + box_width), 0)] = True
    return region
