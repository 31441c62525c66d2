"""MedMNIST archives (`.npz`): one frame per image, with its label and its part of the split."""

import io
import zipfile
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.pixels.decode.guard import rejecting
from workers.pixels.decode.types import FrameFacts, HeaderFacts, ImageFile, Limits
from workers.pixels.pixels import Pixels

_IMAGES, _LABELS = "_images.npy", "_labels.npy"
_ENTRIES = 64
"""Entries of an archive at most; MedMNIST has six."""


@dataclass(frozen=True)
class _Part:
    name: str
    images: NDArray[Any]
    """(N, H, W) or (N, H, W, 3), uint8 or uint16."""
    labels: tuple[str | None, ...]


def open_npz(data: bytes, limits: Limits) -> ImageFile:
    """Open a MedMNIST archive: arrays `<part>_images` and `<part>_labels`.

    Every array is inflated once here, which checks its checksum, after its header was checked;
    pickled arrays are never loaded. Frames are counted through the parts in the archive's order.
    Several labels of one image are joined by `|`.
    """
    with rejecting(), zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [entry.filename for entry in archive.infolist()]
        parts = [name.removesuffix(_IMAGES) for name in names if name.endswith(_IMAGES)]
        if not parts or len(names) > _ENTRIES:
            detail = "an archive without MedMNIST's <part>_images"
            raise RejectedImage(RejectReason.UNKNOWN_FORMAT, detail)
        sizes = sum(archive.getinfo(name).file_size for name in names)
        limits.check_bytes(sizes, "the inflated archive")
        read = [_read_part(archive, part, limits) for part in parts]
    frames = tuple(facts for part in read for facts in _facts(part))
    if not frames:
        raise RejectedImage(RejectReason.NO_PIXELS, "an archive with no images")
    starts = np.cumsum([0, *(len(part.images) for part in read)])

    def decode(frame: int) -> Pixels:
        index = int(np.searchsorted(starts, frame, side="right")) - 1
        array = np.ascontiguousarray(read[index].images[frame - int(starts[index])])
        return Pixels(array, array.dtype.itemsize * 8, None, False, None)

    return ImageFile("npz", frames, HeaderFacts(), decode)


def _read_part(archive: zipfile.ZipFile, part: str, limits: Limits) -> _Part:
    images = _read_array(archive, part + _IMAGES, limits)
    if images.dtype not in (np.uint8, np.uint16):
        raise RejectedImage(RejectReason.UNSUPPORTED_PIXELS, f"images of dtype {images.dtype}")
    if images.ndim != 3 and not (images.ndim == 4 and images.shape[3] == 3):
        detail = f"images of shape {images.shape}; volumes are not read"
        raise RejectedImage(RejectReason.UNSUPPORTED_PIXELS, detail)
    if part + _LABELS not in archive.namelist():
        return _Part(part, images, (None,) * len(images))
    labels = _read_array(archive, part + _LABELS, limits)
    if len(labels) != len(images):
        detail = f"{len(images)} images and {len(labels)} labels"
        raise RejectedImage(RejectReason.CORRUPT, detail)
    rows = labels.reshape(len(labels), -1) if len(labels) else labels.reshape(0, 1)
    return _Part(part, images, tuple("|".join(str(one) for one in row) for row in rows.tolist()))


def _read_array(archive: zipfile.ZipFile, name: str, limits: Limits) -> NDArray[Any]:
    """Read one array of the archive: header first, then exactly the bytes it announces."""
    with archive.open(name) as stream:
        shape, fortran, dtype = _read_npy_header(stream)
        if dtype.hasobject or dtype.kind not in "biufU" or not shape:
            detail = f"an array of dtype {dtype.kind} and shape {shape}"
            raise RejectedImage(RejectReason.UNSUPPORTED_PIXELS, detail)
        count = int(np.prod(shape, dtype=object)) * dtype.itemsize
        limits.check_bytes(count, "an array")
        if len(shape) > 2:
            limits.check_frame(shape[1], shape[2], count // max(shape[0] * shape[1] * shape[2], 1))
        content = stream.read(count)
        # The checksum is compared only when the end is seen.
        if len(content) != count or stream.read(1):
            raise RejectedImage(RejectReason.TRUNCATED, f"{len(content)} of {count} bytes")
    array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _read_npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    if version == (1, 0):
        return npy.read_array_header_1_0(stream)
    if version == (2, 0):
        return npy.read_array_header_2_0(stream)
    raise RejectedImage(RejectReason.UNSUPPORTED_ENCODING, f"npy version {version}")


def _facts(part: _Part) -> list[FrameFacts]:
    height, width = part.images.shape[1:3]
    channels = 3 if part.images.ndim == 4 else 1
    bits = part.images.dtype.itemsize * 8
    return [FrameFacts(height, width, bits, channels, label, part.name) for label in part.labels]
