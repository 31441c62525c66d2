"""The one way in: from bytes to an opened image file."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.pixels.decode.dicom import open_dicom
from workers.pixels.decode.guard import rejecting
from workers.pixels.decode.jpeg import open_jpeg
from workers.pixels.decode.npz import open_npz
from workers.pixels.decode.pillow import open_with_pillow
from workers.pixels.decode.png import open_png
from workers.pixels.decode.sniff import sniff
from workers.pixels.decode.types import ImageFile, Limits


def _open_webp(data: bytes, limits: Limits) -> ImageFile:
    if len(data) < int.from_bytes(data[4:8], "little") + 8:
        raise RejectedImage(RejectReason.TRUNCATED, "shorter than its RIFF header says")
    return open_with_pillow(data, "webp", limits)


_OPENERS: Mapping[str, Callable[[bytes, Limits], ImageFile]] = MappingProxyType(
    {
        "png": open_png,
        "jpeg": open_jpeg,
        "tiff": lambda data, limits: open_with_pillow(data, "tiff", limits),
        "bmp": lambda data, limits: open_with_pillow(data, "bmp", limits),
        "webp": _open_webp,
        "npz": open_npz,
        "dicom": open_dicom,
    }
)


def open_image(data: bytes, limits: Limits | None = None) -> ImageFile:
    """Open an image file, whatever its format, and read what its header says.

    The format is found in the content; no name is asked. A file that is cut off or can't
    be a picture is rejected here: plain PNG, JPEG and DICOM by their structure (chunks and
    checksums, markers, lengths), every other file by decoding it once. Damage that a structure
    does not show is found when the pixels are decoded.

    Raises:
        RejectedImage: whatever is wrong with the file; never anything else.
    """
    limits = limits or Limits()
    with rejecting():
        limits.check_bytes(len(data), "the file")
        return _OPENERS[sniff(data)](data, limits)
