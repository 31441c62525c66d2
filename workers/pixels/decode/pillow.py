"""What Pillow opens: TIFF, BMP and WebP, and the PNG and JPEG files that are not plain."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.pixels.decode.compose import on_black
from workers.pixels.decode.guard import quiet, rejecting, silence_loggers
from workers.pixels.decode.orientation import upright
from workers.pixels.decode.types import FrameFacts, HeaderFacts, ImageFile, Limits
from workers.pixels.pixels import Pixels

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE, _PHOTOMETRIC, _NEW_SUBFILE, _SAMPLE_FORMAT = 258, 262, 254, 339
_WHITE_IS_ZERO = 0
_SIGNED, _FLOAT, _COMPLEX = 2, 3, 6
_MODE_BYTES = {"1": 1, "L": 1, "P": 4, "LA": 2, "PA": 4, "I;16": 2, "I;16L": 2, "I;16B": 2}
_NATIVE_NOISE = ("tiff", "jpeg")
"""Formats whose C libraries print to descriptor 2."""


def read_orientation(data: bytes, name: str) -> int:
    """EXIF (or XMP) orientation of a file, 1 where there is none or it is broken."""
    try:
        with quiet(), Image.open(io.BytesIO(data), formats=[name]) as image:
            return _orientation(image)
    except Exception:  # noqa: BLE001
        # A picture with a broken EXIF block is a picture; that block decides nothing else.
        return 1


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def open_with_pillow(data: bytes, name: str, limits: Limits) -> ImageFile:
    """Open a file with Pillow and decode all its frames once.

    Decoding is the only reliable check of these formats: their headers don't say where the data
    ends. The pixels of a file with a single frame are kept, so that it is not decoded twice.
    """
    facts: list[FrameFacts] = []
    pages: list[int] = []
    kept: list[Pixels] = []
    total = 0
    with rejecting(), _opened(data, name) as image:
        count = _frame_count(image, name)
        for page in range(count):
            if page:
                image.seek(page)
            if name == "tiff" and count > 1 and _is_reduced(image):
                continue
            total += _check(image, limits)
            limits.check_bytes(total, "all frames together")
            kept = [_load(data, image, name, page)]
            array = kept[0].array
            channels = 1 if array.ndim == 2 else 3
            facts.append(FrameFacts(array.shape[0], array.shape[1], kept[0].bits, channels))
            pages.append(page)
    if not facts:
        raise RejectedImage(RejectReason.NO_PIXELS, "only reduced copies of a missing image")
    if len(facts) == 1:
        return ImageFile(name, tuple(facts), HeaderFacts(), lambda frame: kept[0])

    def decode(frame: int) -> Pixels:
        with _opened(data, name) as image:
            image.seek(pages[frame])
            return _load(data, image, name, pages[frame])

    return ImageFile(name, tuple(facts), HeaderFacts(), decode)


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    with (
        quiet(native=name in _NATIVE_NOISE),
        Image.open(io.BytesIO(data), formats=[name]) as image,
    ):
        yield image


def _frame_count(image: Image.Image, name: str) -> int:
    """Frames to read: all pages of a TIFF, the first picture of anything else.

    A JPEG of several pictures (MPO) holds views of one scene; the first is the picture.
    """
    count = int(getattr(image, "n_frames", 1))
    if name in ("webp", "png") and count > 1:
        raise RejectedImage(RejectReason.ANIMATED, f"{count} frames")
    return count if name == "tiff" else 1


def _is_reduced(image: Image.Image) -> bool:
    """Whether a TIFF page is a thumbnail or a mask of another (NewSubfileType bits 0 and 2)."""
    kind = image.tag_v2.get(_NEW_SUBFILE, 0)  # type: ignore[attr-defined]
    return isinstance(kind, int) and bool(kind & 0b101)


def _check(image: Image.Image, limits: Limits) -> int:
    """Check the frame's size; returns the bytes it takes decoded."""
    sample = 8 if _is_deep(image) else _MODE_BYTES.get(image.mode, 4)
    limits.check_frame(image.height, image.width, sample)
    return image.height * image.width * sample


def _tag(image: Image.Image, tag: int, default: int) -> int:
    """A TIFF tag's first value."""
    tags = getattr(image, "tag_v2", None)
    value = default if tags is None else tags.get(tag, default)
    first = value[0] if isinstance(value, tuple) and value else value
    return first if isinstance(first, int) else default


def _is_deep(image: Image.Image) -> bool:
    """Whether this is a TIFF page of several 16-bit samples, which Pillow cuts to 8 bits."""
    several = image.mode in ("RGB", "RGBA", "RGBX", "RGBa", "LA", "CMYK")
    return several and _tag(image, _BITS_PER_SAMPLE, 8) == 16


def _load(data: bytes, image: Image.Image, name: str, page: int) -> Pixels:
    """Decode the current frame."""
    if _is_deep(image):
        return _load_deep(data, image, page)
    signed = _tag(image, _SAMPLE_FORMAT, 1)
    if image.mode == "F" or signed in (_FLOAT, _COMPLEX):
        raise RejectedImage(RejectReason.UNSUPPORTED_PIXELS, "floating-point samples")
    bits = _tag(image, _BITS_PER_SAMPLE, 16) if image.mode.startswith("I") else 8
    image.load()
    orientation = _orientation(image)
    if signed == _SIGNED:
        array = upright(_signed(image, _tag(image, _BITS_PER_SAMPLE, 8)), orientation)
        return Pixels(array, bits, value_range(array), False, None)
    array = upright(_unsigned(image, bits), orientation)
    # Pillow turns 8-bit pictures whose zero is white, but leaves those of 16 bits as they are.
    inverted = bits > 8 and name == "tiff" and _tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO
    return Pixels(array, bits, None, inverted, None)


def value_range(array: NDArray[Any]) -> tuple[float, float]:
    """The window (centre, width) that shows all values, by DICOM's linear function (C.11.2.1.2.1).

    That function maps centre - 0.5 -/+ (width - 1) / 2 to black and white.
    """
    low, high = float(array.min()), float(array.max())
    return (low + high) / 2 + 0.5, high - low + 1


def _signed(image: Image.Image, bits: int) -> NDArray[Any]:
    """Signed samples as int16."""
    array = np.asarray(image)
    if bits == 8 and image.mode == "L":
        return array.view(np.int8).astype(np.int16)
    if bits <= 16 and array.ndim == 2:
        return array.astype(np.int16)
    raise RejectedImage(RejectReason.UNSUPPORTED_PIXELS, f"signed samples of {bits} bits")


def _unsigned(image: Image.Image, bits: int) -> NDArray[Any]:
    """Any unsigned mode of Pillow as grey or RGB, uint8 or uint16."""
    mode = image.mode
    if mode in ("L", "RGB"):
        return np.array(image)
    if mode == "1":
        return np.asarray(image).astype(np.uint8) * np.uint8(255)
    if mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if mode == "I" and bits <= 16:
        return np.asarray(image).astype(np.uint16)
    if mode == "P":
        mode = "PA" if "transparency" in image.info else "P"
    if mode in ("LA", "La"):
        pair = np.asarray(image.convert("LA") if mode == "La" else image)
        return on_black(pair[..., 0], pair[..., 1])
    if mode in ("RGBA", "RGBa", "PA"):
        four = np.asarray(image.convert("RGBA"))
        return on_black(four[..., :3], four[..., 3])
    if mode in ("P", "RGBX", "CMYK", "YCbCr", "HSV"):
        return np.array(image.convert("RGB"))
    raise RejectedImage(RejectReason.UNSUPPORTED_PIXELS, f"mode {mode} of {bits} bits")


def _load_deep(data: bytes, image: Image.Image, page: int) -> Pixels:
    """Decode a TIFF page of several 16-bit samples with OpenCV."""
    silence_loggers()
    if image.mode == "CMYK":
        raise RejectedImage(RejectReason.UNSUPPORTED_PIXELS, "CMYK of 16 bits")
    source = np.frombuffer(data, np.uint8)
    found, arrays = cv2.imdecodemulti(source, cv2.IMREAD_UNCHANGED, range=(page, page + 1))
    array = np.asarray(arrays[0]) if found and arrays else None
    if array is None or array.dtype != np.uint16 or array.ndim != 3:
        raise RejectedImage(RejectReason.CORRUPT, "16-bit samples can't be decoded")
    if array.shape[2] == 4:
        array = on_black(cv2.cvtColor(array, cv2.COLOR_BGRA2RGB), array[..., 3])
    else:
        array = cv2.cvtColor(array, cv2.COLOR_BGR2RGB)
    return Pixels(array, 16, None, False, None)
