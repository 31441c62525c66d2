"""Prepared pixels as bytes, without loss.

One byte says the layout, then the planes follow, row by row, one sample a byte. Parquet compresses
them; why with LZ4, and why no filter, PNG or JPEG-LS goes before, is measured in
`docs/adr/0008-prepared-pixels.md`.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason

View = NDArray[np.uint8]

GREY, GREY_IN_COLOUR, COLOUR = 1, 2, 3
"""Layouts: (H, W); (H, W, 3) of three equal planes, stored once; (H, W, 3), stored plane by plane.
"""


def encode(pixels: View) -> bytes:
    """Encode (H, W) or (H, W, 3) uint8 pixels.

    Raises:
        ValueError: if the pixels have another shape or type.
    """
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or pixels.shape[2:] == (3,)):
        got = f"{pixels.shape} {pixels.dtype}"
        raise ValueError(f"prepared pixels are (H, W) or (H, W, 3) uint8: got {got}")
    if pixels.ndim == 2:
        return bytes((GREY,)) + pixels.tobytes()
    first, *others = cv2.split(pixels)
    if all(np.array_equal(first, other) for other in others):
        return bytes((GREY_IN_COLOUR,)) + first.tobytes()
    return b"".join((bytes((COLOUR,)), first.tobytes(), *(other.tobytes() for other in others)))


def decode(data: bytes, height: int, width: int) -> View:
    """Return the pixels that `encode` was given, as a read-only view of ``data``.

    Colour lies plane by plane, so that channels first cost no copy.

    Raises:
        RejectedImage: if the bytes are no pixels of this size.
    """
    layout = data[0] if data else 0
    planes = 3 if layout == COLOUR else 1
    if layout not in (GREY, GREY_IN_COLOUR, COLOUR) or len(data) != 1 + planes * height * width:
        raise RejectedImage(
            RejectReason.CORRUPT,
            f"{len(data)} bytes of layout {layout} are no prepared pixels of {width} x {height}",
        )
    view_CHW: View = np.frombuffer(data, np.uint8, offset=1).reshape(planes, height, width)
    if layout == GREY:
        return view_CHW.reshape(height, width)
    view_HWC: View = np.broadcast_to(view_CHW.transpose(1, 2, 0), (height, width, 3))
    return view_HWC
