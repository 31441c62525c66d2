"""What an ultrasound machine writes on its image: figures, a probe sign, a coloured scale bar."""

import cv2
import numpy as np

from workers.phantoms.frame import Box, ScaleBar
from workers.phantoms.noise import Array

COLOURS = {"blue": (40, 90, 235), "yellow": (235, 215, 45)}
"""RGB of scale bars, before a machine's own shade."""


def draw_overlay(
    pixels: Array, scale_bar: bool, sector: tuple[float, float, float], own: np.random.Generator
) -> ScaleBar | None:
    """Write on an RGB image in place; ``sector`` is left edge (px), px per mm, and depth (mm)."""
    left_px, px_per_mm, depth_mm = sector
    _draw_text(pixels, depth_mm, own)
    _draw_grey_wedge(pixels, own)
    if not scale_bar:
        return None
    return _draw_scale_bar(pixels, left_px, px_per_mm, own)


def _draw_text(pixels: Array, depth_mm: float, own: np.random.Generator) -> None:
    height, width = pixels.shape[:2]
    lines = [
        f"C{own.integers(4, 7)}-{own.integers(1, 3)} ABD",
        f"D {depth_mm / 10:.1f}cm",
        f"GN {own.integers(40, 80)}",
        f"DR {own.integers(50, 80)}",
        f"FR {own.integers(18, 45)}Hz",
        f"MI {own.uniform(0.6, 1.4):.1f}",
        f"TIS {own.uniform(0.1, 0.9):.1f}",
    ]
    shown = own.permutation(len(lines))[: own.integers(2, 5)]
    scale, step = 0.30 * width / 256, round(0.052 * height) + 1
    grey = int(own.integers(150, 245))
    x = round(0.80 * width) if own.random() < 0.5 else round(0.01 * width)
    for row, line in enumerate(sorted(shown)):
        place = (x, step * (row + 1))
        cv2.putText(pixels, lines[line], place, cv2.FONT_HERSHEY_SIMPLEX, scale, (grey,) * 3, 1)
    cv2.circle(
        pixels, (round(0.30 * width), round(0.03 * height)), max(2, width // 110), (grey,) * 3, 1
    )


def _draw_grey_wedge(pixels: Array, own: np.random.Generator) -> None:
    """The grey wedge many machines show at the right margin."""
    if own.random() < 0.5:
        height, width = pixels.shape[:2]
        top, bottom, left = round(0.35 * height), round(0.75 * height), round(0.965 * width)
        ramp = np.linspace(255, 0, bottom - top).astype(np.uint8)
        pixels[top:bottom, left : left + max(3, width // 64)] = ramp[:, None, None]


def _draw_scale_bar(
    pixels: Array, left_px: float, px_per_mm: float, own: np.random.Generator
) -> ScaleBar:
    """A vertical ruler left of the sector: a line with a tick every centimetre."""
    height, width = pixels.shape[:2]
    colour = str(own.choice(list(COLOURS)))
    shade = own.uniform(0.8, 1.0)
    rgb = tuple(int(channel * shade) for channel in COLOURS[colour])
    thick = max(1, round(width / 256 * own.choice([1, 2])))
    long_tick, short_tick = max(5, width // 36), max(3, width // 64)
    x = int(min(own.uniform(0.02, 0.07) * width, left_px - long_tick - thick - 2))
    x = max(x, 0)
    top, bottom = round(own.uniform(0.27, 0.33) * height), round(own.uniform(0.85, 0.97) * height)
    pixels[top:bottom, x : x + thick] = rgb
    step_px = 10.0 * px_per_mm
    for tick in range(int((bottom - top - thick) / step_px) + 1):
        y = round(top + tick * step_px)
        length = long_tick if tick % 5 == 0 else short_tick
        pixels[y : y + thick, x : x + thick + length] = rgb
    box = Box(x, top, thick + long_tick, bottom - top)
    return ScaleBar(colour, box, 10.0)
