"""JPEG: a walk over the markers, and OpenCV for the plain 8-bit grey and colour files."""

from dataclasses import dataclass

import cv2
import numpy as np

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.pixels.decode.guard import silence_loggers
from workers.pixels.decode.orientation import upright, upright_size
from workers.pixels.decode.pillow import open_with_pillow, read_orientation
from workers.pixels.decode.types import FrameFacts, HeaderFacts, ImageFile, Limits
from workers.pixels.pixels import Pixels

_SOF = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}) | {0xF7}
"""Start-of-frame markers (ITU T.81 B.1.1.3), and SOF55 of JPEG-LS (ITU T.87 C.1.1)."""
_SOS, _EOI, _APP1 = 0xDA, 0xD9, 0xE1
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_PLAIN = (0xC0, 0xC1, 0xC2)
"""Huffman-coded sequential and progressive DCT: what every libjpeg decodes."""


@dataclass(frozen=True)
class JpegHeader:
    """What the markers before the first scan say."""

    sof: int
    precision: int
    height: int
    width: int
    components: int
    scan_at: int
    """Offset of the first byte after the first start-of-scan segment's marker."""
    has_metadata: bool
    """Whether an EXIF or XMP segment may hold an orientation."""


def read_header(data: bytes) -> JpegHeader | None:
    """Walk the markers from 0 to the first scan; None if they are broken or end before it."""
    at, end = 2, len(data)
    frame: tuple[int, int, int, int, int] | None = None
    metadata = False
    while at + 4 <= end and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        at += 2
        if marker in _STANDALONE:
            continue
        if marker == _SOS:
            return JpegHeader(*frame, at, metadata) if frame else None
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2 or marker == _EOI or at + length > end:
            return None
        if marker in _SOF and length >= 8:
            height = int.from_bytes(data[at + 3 : at + 5], "big")
            width = int.from_bytes(data[at + 5 : at + 7], "big")
            frame = (marker, data[at + 2], height, width, data[at + 7])
        elif marker == _APP1:
            metadata = True
        at += length
    return None


def is_complete(data: bytes, header: JpegHeader) -> bool:
    """Whether an end-of-image marker follows the first scan.

    Within a scan FF is always followed by 00 or a restart marker, so FFD9 ends the image; the
    thumbnails of EXIF, which have end markers of their own, lie before the scan.
    """
    return data.endswith(b"\xff\xd9") or data.find(b"\xff\xd9", header.scan_at) >= 0


def is_plain(data: bytes, header: JpegHeader) -> bool:
    """Whether this is a complete 8-bit Huffman-coded file of one or three components."""
    return (
        header.sof in _PLAIN
        and header.precision == 8
        and header.components in (1, 3)
        and header.height > 0
        and is_complete(data, header)
    )


def open_jpeg(data: bytes, limits: Limits) -> ImageFile:
    """Open a JPEG file.

    A plain file with its end marker is not decoded here: a walk over its markers takes 5 us
    where decoding a chest X-ray of 224 x 224 takes 280 us, and no decoder tells damage within a
    complete scan from texture anyway. Any other file (no end marker, CMYK, arithmetic coding,
    broken markers) is decoded whole by Pillow, which is the honest check and costs little
    because such files are rare.
    """
    header = read_header(data)
    if header is None or not is_plain(data, header):
        if header is not None and header.height > 0:
            limits.check_frame(header.height, header.width, header.components)
        if header is not None and (
            header.precision != 8 or header.sof not in (*_PLAIN, 0xC9, 0xCA)
        ):
            detail = f"{header.precision}-bit JPEG of process SOF{header.sof - 0xC0}"
            raise RejectedImage(RejectReason.UNSUPPORTED_ENCODING, detail)
        return open_with_pillow(data, "jpeg", limits)
    return _open_plain(data, header, limits)


def _open_plain(data: bytes, header: JpegHeader, limits: Limits) -> ImageFile:
    limits.check_frame(header.height, header.width, header.components)
    orientation = read_orientation(data, "jpeg") if header.has_metadata else 1
    height, width = upright_size(header.height, header.width, orientation)
    facts = FrameFacts(height, width, 8, header.components)

    def decode(frame: int) -> Pixels:
        silence_loggers()
        colour = cv2.IMREAD_GRAYSCALE if header.components == 1 else cv2.IMREAD_COLOR_RGB
        source = np.frombuffer(data, np.uint8)
        array = cv2.imdecode(source, colour | cv2.IMREAD_IGNORE_ORIENTATION)
        if array is None or array.shape[:2] != (header.height, header.width):
            raise RejectedImage(RejectReason.CORRUPT, "the scan can't be decoded")
        return Pixels(upright(array, orientation), 8, None, False, None)

    return ImageFile("jpeg", (facts,), HeaderFacts(), decode)
