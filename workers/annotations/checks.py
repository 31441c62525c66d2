"""What a box must be to count as an annotation of its image."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason

_TOLERANCE_PX = 1.0
"""How far a box may reach out of its image: tools round edges, and some count pixels from 1."""
_TOLD = 5
"""Boxes that a reject names; there may be hundreds."""


@dataclass(frozen=True)
class Given:
    """A box as its source has it."""

    name: str
    """Which one it is, for messages: `annotation 17`."""
    category: str | None
    x: float | None
    y: float | None
    w: float | None
    h: float | None
    area: float | None = None
    """Of the mask, px²; that of the box when not given."""
    iscrowd: bool = False
    fault: RejectedImage | None = None
    """What its source knows to be wrong with it."""


@dataclass(frozen=True)
class Annotation:
    """A box that can be written, in px of the upright original."""

    category: str
    x: float
    y: float
    w: float
    h: float
    area: float
    iscrowd: bool


@dataclass(frozen=True)
class Categories:
    """What boxes may hold."""

    renamed: Mapping[str, str]
    """Category of the source to the category it becomes."""
    allowed: frozenset[str] = frozenset()
    """Any when empty."""

    def resolve(self, given: str | None, default: str | None) -> str:
        """The category of a box.

        Raises:
            RejectedImage: `unknown_category` if it has none, or one that is not allowed.
        """
        found = given or default
        if found is None:
            raise RejectedImage(
                RejectReason.UNKNOWN_CATEGORY, "no category, and the image has no label"
            )
        category = self.renamed.get(found, found)
        if self.allowed and category not in self.allowed:
            raise RejectedImage(
                RejectReason.UNKNOWN_CATEGORY, f"the category {category} is not allowed"
            )
        return category


def check_all(
    boxes: Sequence[Given], size: tuple[int, int], categories: Categories, default: str | None
) -> list[Annotation]:
    """Check all boxes of an image of ``size`` (height, width); equal ones are one.

    An image is annotated whole or not at all: with one box missing it would teach a detector that
    there is nothing.

    Raises:
        RejectedImage: with the reason of the first box that is wrong, and all of them named.
    """
    found: dict[Annotation, None] = {}
    faults: list[tuple[RejectReason, str]] = []
    for box in boxes:
        try:
            if box.fault is not None:
                raise box.fault
            category = categories.resolve(box.category, default)
            found[_checked(box, category, *size)] = None
        except RejectedImage as reject:
            faults.append((reject.reason, f"{box.name}: {reject.detail}"))
    if faults:
        told = "; ".join(detail for _, detail in faults[:_TOLD])
        more = f"; and {len(faults) - _TOLD} more" if len(faults) > _TOLD else ""
        raise RejectedImage(faults[0][0], told + more)
    return list(found)


def _checked(box: Given, category: str, height: int, width: int) -> Annotation:
    numbers = (box.x, box.y, box.w, box.h, 0.0 if box.area is None else box.area)
    if any(one is None or not math.isfinite(one) for one in numbers):
        raise RejectedImage(RejectReason.MALFORMED_ANNOTATION, "a number is missing or none")
    x, y, w, h = (float(one or 0) for one in numbers[:4])
    if w <= 0 or h <= 0:
        raise RejectedImage(RejectReason.EMPTY_BOX, f"{w:g} x {h:g} px")
    if box.area is not None and box.area <= 0:
        raise RejectedImage(RejectReason.EMPTY_BOX, f"an area of {box.area:g} px²")
    out = max(-x, -y, x + w - width, y + h - height)
    if out > _TOLERANCE_PX:
        raise RejectedImage(
            RejectReason.OUTSIDE_IMAGE,
            f"{x:g}, {y:g}, {w:g} x {h:g} px reaches {out:g} px out of {width} x {height}",
        )
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)
    if right <= left or bottom <= top:
        raise RejectedImage(RejectReason.OUTSIDE_IMAGE, "all of it lies beyond the edge")
    # Only a box that sticks out changes: the difference of sums would round all others.
    w = w if out <= 0 else right - left
    h = h if out <= 0 else bottom - top
    area = box.area if box.area is not None else w * h
    return Annotation(category, left, top, w, h, float(area), box.iscrowd)
