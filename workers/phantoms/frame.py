"""A drawn phantom before it becomes a file: pixels, lesions, scale bar."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from workers.phantoms.noise import Array


@dataclass(frozen=True)
class Site:
    """How the machines of one site differ from the average."""

    name: str
    gain: float = 0.0
    """Brightness offset, about -1 to 1."""
    contrast: float = 1.0
    """Factor on contrast, about 0.8 to 1.25."""


@dataclass(frozen=True)
class Case:
    """What one image shows, and where it was taken."""

    label: str
    view: str
    site: Site
    size: int
    """Width of the image in pixels."""
    scale_bar: bool = False
    """Whether a blue or yellow scale bar stands at the margin (ultrasound)."""


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels: ``x, y`` is its upper left pixel."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Mark:
    """A lesion: its category and its mask (H, W), uint8, 255 inside."""

    category: str
    mask: Array

    @property
    def box(self) -> Box:
        """The smallest box around the mask."""
        return Box(*cv2.boundingRect(self.mask))


@dataclass(frozen=True)
class ScaleBar:
    """A coloured ruler at the margin of an ultrasound image."""

    colour: str
    """blue or yellow."""
    box: Box
    mm_per_tick: float


@dataclass(frozen=True)
class Frame:
    """One image as drawn.

    ``pixels`` is (H, W, 3) uint8 RGB for ultrasound, (H, W) int16 in Hounsfield units for CT, and
    (H, W) float32 between 0 and 1 for X-rays.
    """

    pixels: Array
    grey_step: float
    """What one of 255 grey levels is in units of ``pixels``."""
    spacing_mm: float
    marks: tuple[Mark, ...] = ()
    scale_bar: ScaleBar | None = None

    def moved(self, change: Callable[[Array], Array]) -> "Frame":
        """The frame with ``change`` done to its pixels and every mask."""
        marks = tuple(replace(mark, mask=change(mark.mask)) for mark in self.marks)
        return replace(self, pixels=change(self.pixels), marks=marks)


DrawFrame = Callable[[Case, np.random.Generator, np.random.Generator], Frame]
"""Draws a case from the generator of its patient, equal for all their images, and its own."""
