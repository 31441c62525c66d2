"""Several marked images in one: mosaic (YOLOv4, Bochkovskiy et al. 2020) and mixup of detections.

Neither asks whether an image has boxes: a picture of nothing but normal images is a lesson too, and
waiting for boxes would never end in a data set without any.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from workers.detection.augmentation import (
    BoxAugmentation,
    Marked,
    Placement,
    change_tone,
    move_at_random,
    visible,
)
from workers.detection.boxes import Boxes

_CENTRE = (0.25, 0.75)
"""Where the corner lies that the four images of a mosaic share, as shares of the side."""

Draw = Callable[[], Marked]
"""Another image of the training part, at random."""


def compose(marked: Marked, draw: Draw, settings: BoxAugmentation, generator: Generator) -> Marked:
    """One training picture: perhaps a mosaic, perhaps mixed with another image, toned at last."""
    if settings.mosaic and generator.random() < settings.mosaic:
        found = make_mosaic([marked, draw(), draw(), draw()], settings, generator)
    else:
        found = move_at_random(marked, settings, generator)
    if settings.mixup and generator.random() < settings.mixup:
        found = mix(found, move_at_random(draw(), settings, generator))
    return change_tone(found, settings.tone, generator)


def make_mosaic(four: list[Marked], settings: BoxAugmentation, generator: Generator) -> Marked:
    """Four images about a random point, at one random zoom, each mirrored or not on its own.

    An image that is larger than its quarter shows a random part of itself; a smaller one touches
    the point, with black beyond it.
    """
    side = four[0].side
    zoom = generator.uniform(*settings.zoom)
    middle_x, middle_y = (round(side * one) for one in generator.uniform(*_CENTRE, 2))
    pixels_CSS = np.zeros_like(four[0].pixels_CSS)
    boxes = []
    spans_x, spans_y = ((0, middle_x), (middle_x, side)), ((0, middle_y), (middle_y, side))
    quarters = [(x, y) for y in spans_y for x in spans_x]
    for marked, ((left, right), (top, bottom)) in zip(four, quarters, strict=True):
        mirrored = bool(settings.flip and generator.random() < 0.5)
        placement = Placement(
            zoom,
            _start(left, right, zoom * side, side, generator),
            _start(top, bottom, zoom * side, side, generator),
            mirrored,
        )
        moved_CSS = placement.carry(marked.pixels_CSS)
        pixels_CSS[:, top:bottom, left:right] = moved_CSS[:, top:bottom, left:right]
        region = (left, top, right, bottom)
        boxes.append(visible(marked.boxes, placement, side, region, settings.least_share))
    return Marked(pixels_CSS, _join(boxes))


def _start(low: int, high: int, length: float, side: int, generator: Generator) -> float:
    """Where an image of a length begins that fills low to high; ``side`` is the picture's."""
    slack = length - (high - low)
    if slack > 0:
        return low - float(generator.uniform(0, slack))
    return low if high == side else high - length


def mix(one: Marked, other: Marked) -> Marked:
    """Both images at half strength, with the boxes of both."""
    summed_CSS = one.pixels_CSS.astype(np.uint16) + other.pixels_CSS
    return Marked((summed_CSS // 2).astype(np.uint8), _join([one.boxes, other.boxes]))


def _join(parts: list[Boxes]) -> Boxes:
    return Boxes(
        np.concatenate([one.corners_B4 for one in parts]),
        np.concatenate([one.categories_B for one in parts]),
        np.concatenate([one.ignored_B for one in parts]),
    )
