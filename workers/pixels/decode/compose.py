"""Alpha is composed on black, the background of medical images."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def on_black(colour: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    """Compose (H, W) or (H, W, 3) with alpha (H, W) of the same unsigned dtype, rounded."""
    largest = int(np.iinfo(alpha.dtype).max)
    if int(alpha.min()) == largest:
        return np.ascontiguousarray(colour)
    weight = alpha if colour.ndim == 2 else alpha[..., None]
    # Products of two 8- or 16-bit samples and the rounding term fit in 32 bits, unsigned.
    product = colour.astype(np.uint32) * weight + largest // 2
    composed: NDArray[Any] = (product // largest).astype(colour.dtype)
    return composed
