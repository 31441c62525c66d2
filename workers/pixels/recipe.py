"""From a decoded frame to what a model sees, and the way back for boxes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from workers.pixels.colour import grey
from workers.pixels.pixels import Pixels
from workers.pixels.scale_bars import detect_scale_bars, remove_scale_bars
from workers.pixels.sector import find_sector
from workers.pixels.steps import Recipe, require_cpu

__all__ = ["Geometry", "Prepared", "Recipe", "apply", "place", "prepare", "to_uint8"]

View = NDArray[np.uint8]
Window = tuple[float, float]


@dataclass(frozen=True)
class Geometry:
    """Maps points of the original to the prepared image: prepared = original * scale + offset.

    Coordinates are those of pixel edges: the first pixel reaches from 0 to 1.
    """

    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float

    def to_prepared(self, boxes_n4: NDArray[np.floating]) -> NDArray[np.float64]:
        """Map (N, 4) boxes x, y, width, height of the original into the prepared image."""
        scale = np.array([self.scale_x, self.scale_y])
        corner = boxes_n4[:, :2] * scale + (self.offset_x, self.offset_y)
        return np.concatenate([corner, boxes_n4[:, 2:] * scale], axis=1)

    def to_original(self, boxes_n4: NDArray[np.floating]) -> NDArray[np.float64]:
        """Map (N, 4) boxes x, y, width, height of the prepared image into the original."""
        scale = np.array([self.scale_x, self.scale_y])
        corner = (boxes_n4[:, :2] - (self.offset_x, self.offset_y)) / scale
        return np.concatenate([corner, boxes_n4[:, 2:] / scale], axis=1)

    def to_dict(self) -> dict[str, float]:
        """Return the four numbers as JSON values."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Geometry":
        """Read what `to_dict` wrote."""
        return Geometry(**{name: float(value) for name, value in values.items()})


@dataclass(frozen=True)
class Prepared:
    """An image as a recipe made it."""

    array: View
    """(size, size) or (size, size, 3) uint8."""
    geometry: Geometry
    bar_share: float
    """Share of the original's pixels that removing scale bars changed, 0-1."""


def to_uint8(pixels: Pixels, window: Window | None = None) -> View:
    """Return the 8-bit view of a frame, (H, W) or (H, W, 3).

    A grey frame is windowed with `window`, else with its own window (linear, DICOM
    C.11.2.1.2.1). Without either, unsigned samples of up to 16 bits are scaled by their
    significant bits, others from their smallest to their largest finite value. MONOCHROME1 is
    inverted last.
    """
    array = pixels.array
    chosen = (window or pixels.window) if array.ndim == 2 else None
    if array.dtype == np.uint8 and chosen is None and pixels.bits == 8:
        view = array
    elif np.issubdtype(array.dtype, np.integer) and array.dtype.itemsize <= 2:
        view = _through_table(array, chosen, pixels.bits)
    else:
        levels = array.astype(np.float64)
        view = _quantise(_window(levels, chosen) if chosen else _stretch(levels))
    return 255 - view if pixels.inverted else view


def prepare(recipe: Recipe, pixels: Pixels) -> Prepared:
    """Carry out a recipe on one frame.

    Raises:
        RunError: if the recipe's pixels are made on a GPU.
    """
    require_cpu(recipe)
    view = to_uint8(pixels, recipe.window)
    bar_share = 0.0
    if recipe.remove_scale_bar:
        cleared = remove_scale_bars(view, detect_scale_bars(view))
        if cleared is not view:
            changed = cleared != view
            bar_share = float(changed.any(axis=2).mean())
            view = cleared
    left = top = 0
    if recipe.crop_sector:
        sector = find_sector(view)
        if sector is not None:
            left, top, width, height = sector.box
            view = view[top : top + height, left : left + width]
    if recipe.channels == 1:
        view = grey(view)
    elif view.ndim == 2:
        view = np.asarray(cv2.cvtColor(view, cv2.COLOR_GRAY2RGB), np.uint8)
    array, scale, offset = _fit(np.ascontiguousarray(view), recipe)
    geometry = Geometry(
        scale_x=scale[0],
        scale_y=scale[1],
        offset_x=offset[0] - left * scale[0],
        offset_y=offset[1] - top * scale[1],
    )
    return Prepared(array, geometry, bar_share)


def apply(recipe: Recipe, pixels: Pixels) -> tuple[View, Geometry]:
    """Return the prepared uint8 image, (size, size) or (size, size, 3), and its geometry."""
    prepared = prepare(recipe, pixels)
    return prepared.array, prepared.geometry


def _through_table(array: NDArray[Any], window: Window | None, bits: int) -> View:
    """Map integer samples through a table of their type's values: exact, and fast when large."""
    limits = np.iinfo(array.dtype)
    unsigned = limits.min == 0
    if window is None and not unsigned:
        return _quantise(_stretch(array.astype(np.float64)))
    values = np.arange(limits.min, limits.max + 1, dtype=np.float64)
    levels = _window(values, window) if window else values * (255 / (2**bits - 1))
    return np.asarray(_quantise(levels)[array.astype(np.int32) - limits.min], np.uint8)


def _window(values: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
    centre, width = window
    if width <= 1:
        return np.where(values > centre - 0.5, 255.0, 0.0)
    levels: NDArray[np.float64] = ((values - (centre - 0.5)) / (width - 1) + 0.5) * 255
    return levels


def _stretch(values: NDArray[np.float64]) -> NDArray[np.float64]:
    finite = values[np.isfinite(values)]
    if not finite.size or finite.min() == finite.max():
        return np.zeros_like(values)
    low, high = float(finite.min()), float(finite.max())
    return (values - low) * (255 / (high - low))


def _quantise(levels: NDArray[np.float64]) -> View:
    clipped = np.clip(np.nan_to_num(levels, nan=0.0, posinf=255.0, neginf=0.0), 0, 255)
    return np.rint(clipped).astype(np.uint8)


def place(recipe: Recipe, height: int, width: int) -> tuple[int, int, int, int]:
    """Return where in the square a view comes to lie: left, top, width, height in pixels."""
    size = recipe.size
    new_width = new_height = size
    if recipe.resize == "letterbox":
        factor = size / max(height, width)
        new_width = max(1, round(width * factor))
        new_height = max(1, round(height * factor))
    return (size - new_width) // 2, (size - new_height) // 2, new_width, new_height


def _fit(view: View, recipe: Recipe) -> tuple[View, tuple[float, float], tuple[int, int]]:
    """Resize into the square; return it with scale (x, y) and offset (x, y) in pixels."""
    height, width = view.shape[:2]
    size = recipe.size
    left, top, new_width, new_height = place(recipe, height, width)
    resized = _resize(view, new_width, new_height)
    canvas = np.zeros((size, size, *view.shape[2:]), np.uint8)
    canvas[top : top + new_height, left : left + new_width] = resized
    return canvas, (new_width / width, new_height / height), (left, top)


def _resize(view: View, width: int, height: int) -> View:
    """Shrink by averaging areas and enlarge linearly, each axis on its own."""
    small = (min(width, view.shape[1]), min(height, view.shape[0]))
    if small != (view.shape[1], view.shape[0]):
        view = np.asarray(cv2.resize(view, small, interpolation=cv2.INTER_AREA), np.uint8)
    if small != (width, height):
        view = np.asarray(cv2.resize(view, (width, height), interpolation=cv2.INTER_LINEAR))
    return view
