"""Boxes of one image as arrays, on the way into a network and out of it.

Coordinates are those of pixel edges, as in `workers.pixels.recipe.Geometry`: a box that covers
exactly the first pixel has the corners 0, 0, 1, 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Boxes:
    """What is marked in an image."""

    corners_B4: Floats
    """Left, top, right, bottom, px."""
    categories_B: Ints
    """Index of the category among the classes."""
    ignored_B: Flags
    """A region to leave out of loss and scores: a crowd, or one that was never annotated well."""

    def __len__(self) -> int:
        return len(self.corners_B4)

    def take(self, chosen: NDArray[np.bool_] | Ints) -> Self:
        """The boxes of an index or a mask."""
        return type(self)(
            self.corners_B4[chosen], self.categories_B[chosen], self.ignored_B[chosen]
        )

    @classmethod
    def none(cls) -> Self:
        """No boxes: an image on which nothing is to be found."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_))


@dataclass(frozen=True)
class Detections:
    """What a detector found in an image, the most certain first."""

    corners_D4: Floats
    """Left, top, right, bottom, px."""
    scores_D: Floats
    """Confidence, 0-1, falling."""
    categories_D: Ints
    """Index of the category among the bundle's classes."""

    def __len__(self) -> int:
        return len(self.scores_D)

    def take(self, chosen: NDArray[np.bool_] | Ints) -> Self:
        """The detections of an index or a mask."""
        return type(self)(self.corners_D4[chosen], self.scores_D[chosen], self.categories_D[chosen])


def to_corners(boxes_B4: NDArray[np.floating]) -> Floats:
    """Left, top, width, height to left, top, right, bottom."""
    corners_B4 = np.asarray(boxes_B4, np.float32).reshape(-1, 4).copy()
    corners_B4[:, 2:] += corners_B4[:, :2]
    return corners_B4


def corners_of(rows: Sequence[Mapping[str, Any]]) -> Floats:
    """The corners of rows with ``x``, ``y``, ``w`` and ``h``, (B, 4)."""
    sizes = [[row[name] for name in ("x", "y", "w", "h")] for row in rows]
    return to_corners(np.asarray(sizes, np.float32).reshape(-1, 4))


def to_sizes(corners_B4: NDArray[np.floating]) -> Floats:
    """Left, top, right, bottom to left, top, width, height."""
    boxes_B4 = np.asarray(corners_B4, np.float32).reshape(-1, 4).copy()
    boxes_B4[:, 2:] -= boxes_B4[:, :2]
    return boxes_B4


def overlap(one_A4: NDArray[np.floating], other_B4: NDArray[np.floating]) -> NDArray[np.float64]:
    """Intersection over union of every box with every other, float64 (A, B), by corners."""
    a_A4, b_B4 = np.asarray(one_A4, np.float64), np.asarray(other_B4, np.float64)
    low_AB2 = np.maximum(a_A4[:, None, :2], b_B4[None, :, :2])
    high_AB2 = np.minimum(a_A4[:, None, 2:], b_B4[None, :, 2:])
    shared_AB = np.clip(high_AB2 - low_AB2, 0, None).prod(axis=2)
    size_A = (a_A4[:, 2:] - a_A4[:, :2]).prod(axis=1)
    size_B = (b_B4[:, 2:] - b_B4[:, :2]).prod(axis=1)
    union_AB = size_A[:, None] + size_B[None, :] - shared_AB
    ratio_AB: NDArray[np.float64] = np.zeros_like(shared_AB)
    np.divide(shared_AB, union_AB, out=ratio_AB, where=union_AB > 0)
    return ratio_AB


def has_area(corners: NDArray[np.floating]) -> Flags:
    """Which boxes are wider and higher than nothing, by corners (..., 4)."""
    wide, high = (corners[..., edge + 2] > corners[..., edge] for edge in (0, 1))
    return wide & high
