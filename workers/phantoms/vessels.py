"""Vessels of the liver: branching trees and cross-sections, drawn in mm, read off by the beams."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from workers.phantoms.lesions import Beams
from workers.phantoms.noise import Array

_PX_PER_MM = 1.5
_SHIFT = 4
"""Fractional bits of drawing coordinates."""


@dataclass
class _Canvas:
    """Lumen and wall of vessels on a grid of 2/3 mm, uint8; the middle column is x = 0."""

    lumen: Array
    wall: Array

    def line(self, start: tuple[float, float], end: tuple[float, float], width_mm: float) -> None:
        """Draw a piece of a vessel between two points in mm."""
        first, last = self._fixed(start), self._fixed(end)
        thick = max(1, round(width_mm * _PX_PER_MM))
        cv2.line(self.lumen, first, last, 255, thick, cv2.LINE_AA, _SHIFT)
        cv2.line(self.wall, first, last, 255, thick + 2, cv2.LINE_AA, _SHIFT)

    def _fixed(self, point: tuple[float, float]) -> tuple[int, int]:
        unit = _PX_PER_MM * 2**_SHIFT
        return (
            round(point[0] * unit + self.lumen.shape[1] * 2 ** (_SHIFT - 1)),
            round(point[1] * unit),
        )


def draw_vessels(echo_RB: Array, beams: Beams, own: np.random.Generator) -> None:
    """Draw hepatic veins (dark) and portal branches (dark with bright walls) into echo levels."""
    half_width_mm = float(beams.x_RB[-1, -1])
    depth_mm = float(beams.range_R1[-1, 0])
    shape = (int(depth_mm * _PX_PER_MM) + 4, int(2 * half_width_mm * _PX_PER_MM) + 4)
    canvas = _Canvas(np.zeros(shape, np.uint8), np.zeros(shape, np.uint8))
    reach = float(beams.angle_1B[0, -1])
    for _ in range(own.integers(1, 3)):
        start = beams.position(depth_mm * own.uniform(0.25, 0.9), reach * own.uniform(-0.9, 0.9))
        _grow(canvas, start, own.uniform(0, 2 * math.pi), own.uniform(2.2, 5.5), own)
    for _ in range(own.integers(0, 4)):
        place = beams.position(depth_mm * own.uniform(0.2, 0.85), reach * own.uniform(-0.85, 0.85))
        ahead = (place[0] + own.uniform(0, 3), place[1] + own.uniform(0, 3))
        canvas.line(place, ahead, own.uniform(2.0, 7.0))
    column_RB = beams.x_RB * _PX_PER_MM + shape[1] / 2
    row_RB = beams.y_RB * _PX_PER_MM
    lumen_RB = _sampled(canvas.lumen, column_RB, row_RB, own.uniform(0.7, 1.5))
    wall_RB = _sampled(canvas.wall, column_RB, row_RB, 0.8)
    echo_RB += float(own.choice([0.0, 1.0])) * own.uniform(2, 7) * wall_RB
    echo_RB -= lumen_RB * (echo_RB + own.uniform(9, 26))


def _grow(
    canvas: _Canvas,
    start: tuple[float, float],
    heading: float,
    width_mm: float,
    own: np.random.Generator,
) -> None:
    """Grow a tree from its root: each piece bends and narrows, some fork."""
    tips = [(start, heading, width_mm)]
    for _ in range(12):
        if not tips:
            return
        place, heading, width_mm = tips.pop(0)
        length = own.uniform(5, 14)
        end = (place[0] + length * math.cos(heading), place[1] + length * math.sin(heading))
        canvas.line(place, end, width_mm)
        if width_mm > 1.4:
            tips.append((end, heading + own.uniform(-0.35, 0.35), width_mm * 0.84))
        if width_mm > 2.0 and own.random() < 0.35:
            turn = float(own.choice([-1.0, 1.0])) * own.uniform(0.5, 1.0)
            tips.append((end, heading + turn, width_mm * own.uniform(0.5, 0.75)))


def _sampled(layer: Array, column_RB: Array, row_RB: Array, blur: float) -> Array:
    soft = cv2.GaussianBlur(layer, (0, 0), blur)
    return cv2.remap(soft, column_RB, row_RB, cv2.INTER_LINEAR).astype(np.float32) / np.float32(255)
