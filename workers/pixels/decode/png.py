"""PNG: a walk over the chunks with their checksums, and OpenCV for all but palettes."""

import zlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.pixels.decode.compose import on_black
from workers.pixels.decode.guard import silence_loggers
from workers.pixels.decode.orientation import upright, upright_size
from workers.pixels.decode.pillow import open_with_pillow, read_orientation
from workers.pixels.decode.types import FrameFacts, HeaderFacts, ImageFile, Limits
from workers.pixels.pixels import Pixels

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_SAMPLES = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGBA: 4}
_DEPTHS = {
    _GREY: (1, 2, 4, 8, 16),
    _RGB: (8, 16),
    _PALETTE: (1, 2, 4, 8),
    _GREY_ALPHA: (8, 16),
    _RGBA: (8, 16),
}
"""Allowed bit depths by colour type (PNG 3rd edition, table 11.1)."""


@dataclass(frozen=True)
class PngHeader:
    """What the chunks say."""

    width: int
    height: int
    depth: int
    colour: int
    sound: bool
    """All chunks lie within the file with right checksums, from IHDR to IEND."""
    animated: bool
    transparent: bytes | None
    """Content of the tRNS chunk."""
    has_metadata: bool
    """Whether an EXIF or XMP chunk may hold an orientation."""
    has_extras: bool
    """Whether there are ancillary chunks."""


def _chunks(data: bytes) -> list[tuple[bytes, int, int]] | None:
    """(type, start, end) of the content of every chunk; None where one is cut or damaged."""
    view, at, chunks = memoryview(data), len(SIGNATURE), []
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(data):
            return None
        kind = data[at + 4 : at + 8]
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return None
        chunks.append((kind, at + 8, end))
        if kind == b"IEND":
            return chunks
        at = end + 4
    return None


def read_header(data: bytes) -> PngHeader | None:
    """Read IHDR and walk all chunks; None without an IHDR."""
    if len(data) < 33 or data[8:16] != b"\0\0\0\rIHDR":
        return None
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    depth, colour = data[24], data[25]
    chunks = _chunks(data)
    kinds = [kind for kind, _, _ in chunks or ()]
    animated, transparent = False, None
    for kind, start, end in chunks or ():
        if kind == b"IDAT":
            break
        if kind == b"acTL" and end - start == 8:
            animated = int.from_bytes(data[start : start + 4], "big") > 1
        elif kind == b"tRNS":
            transparent = data[start:end]
    return PngHeader(
        width,
        height,
        depth,
        colour,
        sound=chunks is not None and b"IDAT" in kinds,
        animated=animated,
        transparent=transparent,
        has_metadata=b"eXIf" in kinds or b"iTXt" in kinds,
        has_extras=not {*kinds} <= {b"IHDR", b"IDAT", b"IEND"},
    )


def open_png(data: bytes, limits: Limits) -> ImageFile:
    """Open a PNG file.

    A sound file is not inflated here: its checksums, at 4 GB/s, prove that nothing is cut off or
    changed (18 us for an ultrasound of 72 kB, where decoding takes 1.5 ms). A file with a cut or
    damaged chunk, or with a palette, is decoded whole by Pillow.
    """
    header = read_header(data)
    if header is None:
        reason = RejectReason.TRUNCATED if len(data) < 33 else RejectReason.CORRUPT
        raise RejectedImage(reason, "no IHDR chunk")
    if header.depth not in _DEPTHS.get(header.colour, ()):
        detail = f"colour type {header.colour} with {header.depth} bits"
        raise RejectedImage(RejectReason.CORRUPT, detail)
    sample_bytes = 2 if header.depth == 16 else 1
    shown = 4 if header.colour == _PALETTE else _SAMPLES[header.colour]
    limits.check_frame(header.height, header.width, shown * sample_bytes)
    if header.animated:
        raise RejectedImage(RejectReason.ANIMATED, "an animated PNG")
    if not header.sound or header.colour == _PALETTE:
        return open_with_pillow(data, "png", limits)
    orientation = read_orientation(data, "png") if header.has_metadata else 1
    height, width = upright_size(header.height, header.width, orientation)
    channels = 3 if header.colour in (_RGB, _RGBA) else 1
    facts = FrameFacts(height, width, max(header.depth, 8), channels)

    def decode(frame: int) -> Pixels:
        array = _decode(data, header)
        return Pixels(upright(array, orientation), facts.bits, None, False, None)

    return ImageFile("png", (facts,), HeaderFacts(), decode)


def _decode(data: bytes, header: PngHeader) -> NDArray[Any]:
    """Decode to (H, W) or (H, W, 3) RGB, alpha composed."""
    silence_loggers()
    # Profiles, texts and transparency make libpng print warnings, and none of them is used.
    source = np.frombuffer(_only_critical(data) if header.has_extras else data, np.uint8)
    array: NDArray[Any] | None = cv2.imdecode(source, cv2.IMREAD_UNCHANGED)
    if array is None or array.shape[:2] != (header.height, header.width):
        raise RejectedImage(RejectReason.CORRUPT, "the image data can't be inflated")
    if header.colour == _GREY:
        return _hide(array, header)
    if header.colour == _RGB:
        return _hide(cv2.cvtColor(array, cv2.COLOR_BGR2RGB), header)
    if header.colour == _GREY_ALPHA:
        # OpenCV widens grey with alpha to four channels, the first three of them equal.
        return on_black(array[..., 0], array[..., -1])
    return on_black(cv2.cvtColor(array, cv2.COLOR_BGRA2RGB), array[..., 3])


def _hide(array: NDArray[Any], header: PngHeader) -> NDArray[Any]:
    """Blacken the one grey value or colour that tRNS declares transparent."""
    samples = _SAMPLES[header.colour]
    if header.transparent is None or len(header.transparent) != 2 * samples:
        return array
    key = np.frombuffer(header.transparent, ">u2").astype(np.uint32)
    if header.depth < 8:
        key = key * 255 // (2**header.depth - 1)
    hit = array == key[0] if samples == 1 else (array == key).all(axis=-1)
    array[hit] = 0
    return array


def _only_critical(data: bytes) -> bytes:
    """The same picture without ancillary chunks (those with a lower-case first letter)."""
    kept = [SIGNATURE]
    for kind, start, end in _chunks(data) or ():
        if kind[0:1].isupper():
            kept.append(data[start - 8 : end + 4])
    return b"".join(kept)
