"""Random changes of marked images that keep boxes where their pixels go.

Images are square, uint8 (C, S, S); boxes lie in their pixels. All draws come from one generator.
What moves in from outside is black, as the padding of a letterbox is.
"""

from dataclasses import dataclass, replace
from typing import Self

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from workers.detection.boxes import Boxes, Floats

Image = NDArray[np.uint8]

LEAST_SIDE_PX = 2.0
"""A box with a shorter side left can't be learned: less than half a place of the finest map."""


@dataclass(frozen=True)
class BoxAugmentation:
    """How images of a detector's training are changed; everything here enters the fingerprint."""

    flip: bool = True
    """Mirror left and right with a chance of a half, images without boxes too: otherwise mirrored
    would mean ill."""
    window: tuple[float, float] = (0.6, 1.3)
    """Side of the window that is cut out, as a share of the image's; above 1 it reaches beyond."""
    tone: float = 0.4
    """Largest change of brightness, contrast and (in colour) saturation, as a factor."""
    mosaic: float = 0.0
    """Chance that four images are put together."""
    zoom: tuple[float, float] = (0.5, 1.5)
    """Of the images of a mosaic."""
    mixup: float = 0.0
    """Chance that an image is blended half and half with another."""
    least_share: float = 0.25
    """A box of which less is left in the picture is dropped."""

    def alone(self) -> Self:
        """The same without what puts images together."""
        return replace(self, mosaic=0.0, mixup=0.0)


@dataclass(frozen=True)
class Marked:
    """An image and what is marked in it."""

    pixels_CSS: Image
    boxes: Boxes

    @property
    def side(self) -> int:
        """Side of the image, px."""
        return int(self.pixels_CSS.shape[-1])


@dataclass(frozen=True)
class Placement:
    """Moves an image: new = old * zoom + shift in coordinates of pixel edges; mirrored first."""

    zoom: float
    left: float
    top: float
    mirrored: bool = False

    def move(self, corners_B4: Floats, side: int) -> Floats:
        """Corners of boxes of an image of this side, after the move."""
        found_B4 = corners_B4.astype(np.float64)
        if self.mirrored:
            found_B4[:, [0, 2]] = side - found_B4[:, [2, 0]]
        found_B4 = found_B4 * self.zoom + (self.left, self.top, self.left, self.top)
        moved_B4: Floats = found_B4.astype(np.float32)
        return moved_B4

    def carry(self, pixels_CSS: Image) -> Image:
        """The image after the move, in a picture of the same side."""
        side = pixels_CSS.shape[-1]
        # Of pixel middles, which lie half a pixel after the edges.
        along = self.zoom
        left = self.left + (self.zoom - 1) / 2
        top = self.top + (self.zoom - 1) / 2
        if self.mirrored:
            along, left = -self.zoom, left + self.zoom * (side - 1)
        matrix_23 = np.array([[along, 0, left], [0, self.zoom, top]], np.float64)
        planes = [
            cv2.warpAffine(plane_SS, matrix_23, (side, side), flags=cv2.INTER_LINEAR)
            for plane_SS in pixels_CSS
        ]
        return np.stack(planes).astype(np.uint8, copy=False)


def augment(marked: Marked, settings: BoxAugmentation, generator: Generator) -> Marked:
    """Mirror, cut a window out and change the tone of one image."""
    return change_tone(move_at_random(marked, settings, generator), settings.tone, generator)


def move_at_random(marked: Marked, settings: BoxAugmentation, generator: Generator) -> Marked:
    """Mirror an image and cut a random window out of it."""
    placement = draw_placement(marked.side, settings, generator)
    whole = (0, 0, marked.side, marked.side)
    return Marked(
        placement.carry(marked.pixels_CSS),
        visible(marked.boxes, placement, marked.side, whole, settings.least_share),
    )


def draw_placement(side: int, settings: BoxAugmentation, generator: Generator) -> Placement:
    """A random window: anywhere within the image, or, where it is larger, all around it."""
    share = generator.uniform(*settings.window)
    mirrored = bool(settings.flip and generator.random() < 0.5)
    slack = side * (1 - share)
    left, top = generator.uniform(0, 1, 2) * slack  # negative where the window is larger
    zoom = 1 / share
    return Placement(zoom, -left * zoom, -top * zoom, mirrored)


def visible(
    boxes: Boxes,
    placement: Placement,
    side: int,
    region: tuple[int, int, int, int],
    least_share: float,
) -> Boxes:
    """The boxes of an image as a move leaves them within a region of the picture.

    ``region`` is left, top, right, bottom. Boxes are cut at its edges; one of which less than
    ``least_share`` or `LEAST_SIDE_PX` is left is dropped. Ignored regions stay as long as anything
    of them does.
    """
    moved_B4 = placement.move(boxes.corners_B4, side)
    low_2 = np.array(region[:2], np.float32)
    high_2 = np.array(region[2:], np.float32)
    cut_B4 = np.concatenate(
        [np.clip(moved_B4[:, :2], low_2, high_2), np.clip(moved_B4[:, 2:], low_2, high_2)], axis=1
    )
    sides_B2 = cut_B4[:, 2:] - cut_B4[:, :2]
    whole_B = (moved_B4[:, 2:] - moved_B4[:, :2]).prod(axis=1)
    left_B = sides_B2.prod(axis=1)
    good_B = (left_B >= least_share * whole_B) & (sides_B2 >= LEAST_SIDE_PX).all(axis=1)
    kept_B = np.where(boxes.ignored_B, left_B > 0, good_B)
    return replace(boxes, corners_B4=cut_B4).take(kept_B)


def change_tone(marked: Marked, tone: float, generator: Generator) -> Marked:
    """Change brightness, contrast about the mean, and in colour the saturation."""
    if not tone:
        return marked
    brightness, contrast, saturation = generator.uniform(1 - tone, 1 + tone, 3)
    levels_CSS = marked.pixels_CSS.astype(np.float32) * np.float32(brightness)
    mean = levels_CSS.mean(dtype=np.float64)
    levels_CSS = (levels_CSS - np.float32(mean)) * np.float32(contrast) + np.float32(mean)
    if len(levels_CSS) > 1:
        grey_1SS = levels_CSS.mean(axis=0, keepdims=True)
        levels_CSS = (levels_CSS - grey_1SS) * np.float32(saturation) + grey_1SS
    return replace(marked, pixels_CSS=_to_uint8(levels_CSS))


def _to_uint8(levels_CSS: NDArray[np.float32]) -> Image:
    return np.clip(np.rint(levels_CSS), 0, 255).astype(np.uint8)
