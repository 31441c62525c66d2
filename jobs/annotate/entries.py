"""What a source of annotations says: entries that name an image, with a box, a mask or neither."""

from dataclasses import dataclass
from typing import Any

from schemas.reasons import RejectReason

A_MASK = "a mask"
"""What messages call a mask whose image or frame can't be told."""
_DIGITS = 9
"""Of the number of a frame at most; Python refuses to read one of thousands."""


@dataclass(frozen=True)
class Entry:
    """One thing that a source says about one image."""

    image: str
    """The end of the image's path, with or without the file's ending."""
    place: str
    """Where it stands, for rejects of images that are not there: a uri, or file and row."""
    beside: tuple[str, ...] = ()
    """Folders of the file that says so: of images that bear one name, the nearest is meant."""
    frame: int | None = None
    """The frame that is meant; all frames of the file when not given."""
    size: tuple[int, int] | None = None
    """Height and width that the source states, px."""
    box: dict[str, Any] | None = None
    """A box as `jobs.annotate.BOX` has it."""
    mask: dict[str, Any] | None = None
    """A mask's uri (its ``place``), etag, bytes and category; not looked at beside a box."""


def box(
    name: str,
    *,
    category: str | None = None,
    edges: tuple[float | None, ...] = (None, None, None, None),
    area: float | None = None,
    iscrowd: bool = False,
) -> dict[str, Any]:
    """A box as its source has it; ``edges`` are x, y, width, height."""
    x, y, w, h = edges
    return {
        "name": name,
        "category": category,
        "x": x,
        "y": y,
        "w": w,
        "h": h,
        "area": area,
        "iscrowd": iscrowd,
        "reason": None,
        "detail": None,
    }


def fault(name: str, reason: RejectReason, detail: str) -> dict[str, Any]:
    """A box that its source already knows to be wrong."""
    return box(name) | {"reason": reason.value, "detail": detail}


def wrong_frame(name: str) -> dict[str, Any]:
    """The fault of what names a frame that is no number, and so perhaps any of its file."""
    return fault(name, RejectReason.MALFORMED_ANNOTATION, "its frame is no whole number")


def frame_number(text: str) -> int | None:
    """A frame's number in decimals; None for any other text."""
    return int(text) if text.isdecimal() and len(text) <= _DIGITS else None


def number(value: object) -> float | None:
    """A number, or text that is one; nothing else (infinite ones are found later)."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
