"""EXIF orientation: how a stored picture is turned to stand upright (EXIF 2.32, tag 0x0112)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

TRANSPOSED = (5, 6, 7, 8)
"""Orientations that swap width and height."""


def upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn (H, W) or (H, W, C) upright; contiguous. Values outside 1 to 8 change nothing."""
    turn = {
        2: lambda: array[:, ::-1],
        3: lambda: array[::-1, ::-1],
        4: lambda: array[::-1],
        5: lambda: array.swapaxes(0, 1),
        6: lambda: array[::-1].swapaxes(0, 1),
        7: lambda: array[::-1, ::-1].swapaxes(0, 1),
        8: lambda: array[:, ::-1].swapaxes(0, 1),
    }.get(orientation)
    return array if turn is None else np.ascontiguousarray(turn())


def upright_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Height and width after `upright`."""
    return (width, height) if orientation in TRANSPOSED else (height, width)
