"""The three grids of a heat map: cells of the feature map, network input, original image.

All coordinates are those of edges: the first pixel or cell reaches from 0 to 1. The way from the
original to the input is `workers.pixels.recipe.Geometry`, which scales and shifts each axis on its
own, so every map between grids is a product of one small matrix for each axis.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.pixels.recipe import Geometry

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Placement:
    """An original image of ``height`` x ``width`` pixels in a network's square input."""

    geometry: Geometry
    size: int
    """Side of the input in pixels."""
    height: int
    width: int

    def seen(self) -> Floats:
        """(size, size) how much of each input pixel lies on the original; the rest is padding."""
        rows, columns = self._overlaps()
        return np.asarray(np.outer(rows.sum(axis=1), columns.sum(axis=1)), np.float32)

    def to_input(self, mask_HW: Mask) -> Floats:
        """(size, size) how much of each input pixel lies inside a mask of the original, 0-1."""
        rows, columns = self._overlaps()
        return np.asarray(rows @ mask_HW.astype(np.float32) @ columns.T, np.float32)

    def heat_on_input(self, heat_hw: Floats) -> Floats:
        """(size, size) a heat map at the middles of the input's pixels, between cells linear."""
        middles = np.arange(self.size) + 0.5
        return self._interpolated(heat_hw, middles, middles)

    def heat_on_original(self, heat_hw: Floats, height: int, width: int) -> Floats:
        """(height, width) a heat map over the original, drawn at that many pixels.

        It is 0 where the original was cropped away.
        """
        y, inside_y = self._on_input(height, self.height, self.geometry.scale_y, "y")
        x, inside_x = self._on_input(width, self.width, self.geometry.scale_x, "x")
        shown = self._interpolated(heat_hw, y, x) * np.outer(inside_y, inside_x)
        return np.asarray(shown, np.float32)

    def cell_middles(self, rows: int, columns: int) -> tuple[NDArray[np.floating], ...]:
        """The middles of a feature map's cells in the original: y (rows,) and x (columns,)."""
        y = (np.arange(rows) + 0.5) * self.size / rows - self.geometry.offset_y
        x = (np.arange(columns) + 0.5) * self.size / columns - self.geometry.offset_x
        return y / self.geometry.scale_y, x / self.geometry.scale_x

    def _on_input(
        self, shown: int, length: int, scale: float, axis: str
    ) -> tuple[NDArray[np.floating], Mask]:
        """Where an axis drawn at ``shown`` pixels lies on the input, and whether it is on it."""
        offset = self.geometry.offset_y if axis == "y" else self.geometry.offset_x
        places = (np.arange(shown) + 0.5) * (length / shown) * scale + offset
        return places, (places >= 0) & (places <= self.size)

    def _interpolated(
        self, heat_hw: Floats, y: NDArray[np.floating], x: NDArray[np.floating]
    ) -> Floats:
        rows = linear_weights(heat_hw.shape[0], y / self.size * heat_hw.shape[0])
        columns = linear_weights(heat_hw.shape[1], x / self.size * heat_hw.shape[1])
        return np.asarray(rows @ heat_hw @ columns.T, np.float32)

    def _overlaps(self) -> tuple[Floats, Floats]:
        edges = np.arange(self.size + 1)
        y = (edges - self.geometry.offset_y) / self.geometry.scale_y
        x = (edges - self.geometry.offset_x) / self.geometry.scale_x
        return overlap_shares(y, self.height), overlap_shares(x, self.width)


def linear_weights(cells: int, places: NDArray[np.floating]) -> Floats:
    """(places, cells) weights that interpolate between the middles of cells, constant beyond them.

    Equal to `cv2.resize` with INTER_LINEAR for places at the middles of a finer grid's pixels.
    """
    at = np.clip(places - 0.5, 0, cells - 1)
    distance = np.abs(at[:, None] - np.arange(cells))
    weights: Floats = np.maximum(1 - distance, 0).astype(np.float32)
    return weights


def overlap_shares(edges: NDArray[np.floating], length: int) -> Floats:
    """(intervals, length) what share of each interval each of ``length`` pixels takes.

    The intervals lie between neighbouring ``edges``; a row's sum is the share of the interval that
    lies on any pixel.
    """
    # The length of (-inf, edge] on each pixel; its difference is that of an interval.
    below = np.clip(edges[:, None] - np.arange(length), 0, 1)
    shares: Floats = (np.diff(below, axis=0) / np.diff(edges)[:, None]).astype(np.float32)
    return shares
