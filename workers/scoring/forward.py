"""A forward pass on a fixed number of images, whatever computes it."""

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from workers.stages import Stage, during

Pixels = NDArray[np.uint8]
Outputs = NDArray[np.float32]


class OutOfDeviceMemory(Exception):
    """The device has no room for a batch of this size."""


class Forward(Protocol):
    """A network ready to compute batches of one size."""

    batch: int

    def __call__(self, pixels_BCHW: Pixels) -> Outputs:
        """Raw outputs (B, K) of exactly ``batch`` images.

        Raises:
            OutOfDeviceMemory: when the device has no room for them.
        """
        ...


MakeForward = Callable[[int], Forward]
"""Makes the network ready for batches of a given size."""


class Batched:
    """Computes any number of images in batches of a fixed size.

    The last batch is padded with black images, so every image goes through the same kernels
    whoever its neighbours are. Where the device has no room, the batch is halved for good.
    """

    def __init__(self, make: MakeForward, batch: int) -> None:
        self._make = make
        self._forward = make(batch)

    @property
    def batch(self) -> int:
        """Images of one pass."""
        return self._forward.batch

    def outputs(self, pixels_NCHW: Pixels) -> Outputs:
        """Raw outputs (N, K) of at least one image."""
        parts: list[Outputs] = []
        start = 0
        while start < len(pixels_NCHW):
            chunk = pixels_NCHW[start : start + self.batch]
            try:
                with during(Stage.NETWORK):
                    outputs = self._forward(_padded(chunk, self.batch))
            except OutOfDeviceMemory:
                if self.batch == 1:
                    raise
                self._forward = self._make(self.batch // 2)
                continue
            parts.append(outputs[: len(chunk)])
            start += len(chunk)
        return np.concatenate(parts)


def slices(count: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most ``size`` over ``count`` items."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _padded(pixels_NCHW: Pixels, batch: int) -> Pixels:
    missing = batch - len(pixels_NCHW)
    if not missing:
        return pixels_NCHW
    black = np.zeros((missing, *pixels_NCHW.shape[1:]), np.uint8)
    return np.concatenate([pixels_NCHW, black])
