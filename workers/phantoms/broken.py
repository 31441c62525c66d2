"""Files that are no readable image, each in a known way."""

import struct
import zlib
from collections.abc import Mapping
from enum import StrEnum

import numpy as np

from schemas.reasons import RejectReason
from workers.phantoms.encode import Format, Header, dicom_bytes, dicom_header


class Defect(StrEnum):
    """How a file is broken."""

    EMPTY = "empty"
    TRUNCATED = "truncated"
    WRONG_MAGIC = "wrong_magic"
    """Begins like no image format."""
    TEXT = "text"
    """A text file with the name of an image."""
    BOMB = "bomb"
    """Declares far more pixels than it holds bytes for."""
    NO_PIXELS = "no_pixels"
    """A DICOM object without pixel data."""


REASONS: Mapping[Defect, RejectReason] = {
    Defect.EMPTY: RejectReason.EMPTY_FILE,
    Defect.TRUNCATED: RejectReason.TRUNCATED,
    Defect.WRONG_MAGIC: RejectReason.UNKNOWN_FORMAT,
    Defect.TEXT: RejectReason.UNKNOWN_FORMAT,
    Defect.BOMB: RejectReason.TOO_MANY_PIXELS,
    Defect.NO_PIXELS: RejectReason.NO_PIXELS,
}
"""The reason a careful reader gives for each defect."""

FORMATS: Mapping[Defect, Format] = {
    Defect.TEXT: Format.PNG,
    Defect.BOMB: Format.PNG,
    Defect.NO_PIXELS: Format.DICOM,
}
"""Defects that come with an ending of their own; the others take any."""

_BOMB_SIDE = 50_000


def break_file(whole: bytes, defect: Defect, header: Header, rng: np.random.Generator) -> bytes:
    """What a broken file holds; ``whole`` is the sound file it might have been."""
    match defect:
        case Defect.EMPTY:
            return b""
        case Defect.TRUNCATED:
            return whole[: int(len(whole) * rng.uniform(0.3, 0.7))]
        case Defect.WRONG_MAGIC:
            # A zero byte first: no format of images begins with it and then 0xFF.
            return b"\x00\xff\x00\xff" + rng.bytes(min(len(whole), 4096))
        case Defect.TEXT:
            return f"export failed: object {rng.integers(10**6):06d} not found\n".encode()
        case Defect.BOMB:
            return _bomb_png()
        case Defect.NO_PIXELS:
            return dicom_bytes(dicom_header(header))


def _bomb_png() -> bytes:
    """A valid PNG header of 2.5 billion pixels with next to nothing behind it (PNG 1.2, 5)."""
    size = struct.pack(">IIBBBBB", _BOMB_SIDE, _BOMB_SIDE, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(4096))
    chunks = (_chunk(b"IHDR", size), _chunk(b"IDAT", rows), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
