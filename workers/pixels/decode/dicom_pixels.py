"""DICOM pixels: decode, lookup tables and rescale, window, and the traps between them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import ExplicitVRBigEndian

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.pixels.decode.codestream import codestream_size
from workers.pixels.decode.dicom_plugins import stored_values
from workers.pixels.decode.guard import quiet
from workers.pixels.decode.pillow import value_range
from workers.pixels.decode.types import Limits
from workers.pixels.pixels import Pixels

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_PALETTE = "PALETTE COLOR"
_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class PixelModule:
    """The Image Pixel Module (PS3.3 C.7.6.3), checked."""

    rows: int
    columns: int
    frames: int
    samples: int
    allocated: int
    stored: int
    signed: bool
    photometric: str
    shown_bits: int

    @property
    def channels(self) -> int:
        """Samples of a pixel as shown: 1 or 3."""
        return 1 if self.photometric in _GREY else 3

    @property
    def shown_bytes(self) -> int:
        """Bytes of a pixel decoded, at most."""
        return self.channels * max(1, self.allocated // 8)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the pixel data when it is not compressed (PS3.5 8.1.1, 8.2)."""
        pixels = self.rows * self.columns * self.frames
        if self.photometric == "YBR_FULL_422":
            return pixels * 2 * self.allocated // 8
        return math.ceil(pixels * self.samples * self.allocated / 8)


def read_pixel_module(dataset: Dataset) -> PixelModule:
    """Read and check the Image Pixel Module.

    Raises:
        RejectedImage: `CORRUPT` for values that can't be, `UNSUPPORTED_PIXELS` for layouts that
            are no picture.
    """
    samples, allocated = _integer(dataset, "SamplesPerPixel", 1), _integer(dataset, "BitsAllocated")
    stored = _integer(dataset, "BitsStored", allocated)
    photometric = str(dataset.get("PhotometricInterpretation") or "").strip()
    if allocated not in (1, 8, 16, 32) or not 1 <= stored <= allocated:
        raise RejectedImage(RejectReason.UNSUPPORTED_PIXELS, f"{stored} bits stored in {allocated}")
    if (photometric, samples) not in _layouts():
        detail = f"{samples} samples per pixel of an unknown photometric interpretation"
        raise RejectedImage(RejectReason.UNSUPPORTED_PIXELS, detail)
    return PixelModule(
        rows=_integer(dataset, "Rows"),
        columns=_integer(dataset, "Columns"),
        frames=max(_integer(dataset, "NumberOfFrames", 1), 1),
        samples=samples,
        allocated=allocated,
        stored=stored,
        signed=_integer(dataset, "PixelRepresentation", 0) == 1,
        photometric=photometric,
        shown_bits=_shown_bits(dataset, photometric, stored),
    )


def _layouts() -> set[tuple[str, int]]:
    return {(grey, 1) for grey in (*_GREY, _PALETTE)} | {(colour, 3) for colour in _COLOUR}


def _integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    try:
        value = dataset.get(keyword)
        if value is None or value == "":
            value = default
        return int(value)
    except (TypeError, ValueError):
        raise RejectedImage(RejectReason.CORRUPT, f"{keyword} is missing or no number") from None


def _shown_bits(dataset: Dataset, photometric: str, stored: int) -> int:
    if photometric != _PALETTE:
        return min(stored, 16) if photometric in _COLOUR else stored
    table = _palette(dataset)
    if table is None:
        return 8 if int(dataset.RedPaletteColorLookupTableDescriptor[2]) <= 8 else 16
    return table[1].dtype.itemsize * 8


def decode_frame(dataset: Dataset, module: PixelModule, frame: int, limits: Limits) -> Pixels:
    """Decode one frame and bring it to grey or RGB.

    The order is the standard's (PS3.4 N.2): stored values, modality LUT or rescale, then the VOI
    LUT or the window, which is only reported here; MONOCHROME1 is inverted after it.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        _check_codestream(dataset, module, frame, limits)
    with quiet(native=syntax.is_encapsulated):
        # Our own copies of the tables below are exact where pydicom's overflow, so only the
        # stored values (with YBR turned to RGB) are asked for.
        stored = stored_values(dataset, frame)
        if stored.shape[:2] != (module.rows, module.columns):
            raise RejectedImage(RejectReason.CORRUPT, "the frame has another size than its header")
        stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
        if module.photometric in _GREY:
            return _grey(dataset, module, frame, stored)
        return _colour(dataset, module, stored)


def _check_codestream(dataset: Dataset, module: PixelModule, frame: int, limits: Limits) -> None:
    """Check the size that the compressed frame itself claims, before a decoder allocates it."""
    extended = None
    if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
        extended = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    content = get_frame(
        dataset.PixelData, frame, extended_offsets=extended, number_of_frames=module.frames
    )
    size = codestream_size(content)
    if size is not None:
        limits.check_frame(*size, module.shown_bytes)


def _colour(dataset: Dataset, module: PixelModule, stored: NDArray[Any]) -> Pixels:
    spacing = _spacing(dataset, 0)
    if module.photometric == _PALETTE:
        table = _palette(dataset)
        if table is None:
            expanded = apply_color_lut(stored, dataset)[..., :3]
        else:
            expanded = _look_up(stored, *table)
        return Pixels(expanded, expanded.dtype.itemsize * 8, None, False, spacing)
    if module.signed:
        raise RejectedImage(RejectReason.UNSUPPORTED_PIXELS, "signed colour samples")
    if module.stored > 16:
        # Sixteen bits are more than any display shows.
        stored = (stored >> (module.stored - 16)).astype(np.uint16)
    bits = _used_bits(stored, module.shown_bits)
    return Pixels(np.ascontiguousarray(stored), bits, None, False, spacing)


def _grey(dataset: Dataset, module: PixelModule, frame: int, stored: NDArray[Any]) -> Pixels:
    spacing = _spacing(dataset, frame)
    inverted = module.photometric == "MONOCHROME1"
    window = _window(dataset, frame)
    bits, values = module.stored, stored
    if dataset.get("ModalityLUTSequence"):
        table = _table_of(dataset, dataset.ModalityLUTSequence[0])
        values, bits = _look_up(stored, *table), table[1].dtype.itemsize * 8
    else:
        values = _rescale(stored, *_slope(dataset, frame))
    if window is None and dataset.get("VOILUTSequence"):
        first, entries = _table_of(dataset, dataset.VOILUTSequence[0])
        depth = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        bits = depth if 8 <= depth <= 16 else entries.dtype.itemsize * 8
        return Pixels(_look_up(values, first, entries), bits, None, inverted, spacing)
    if values.dtype not in (np.uint8, np.uint16, np.int16, np.float32):
        values = values.astype(np.int16 if values.dtype == np.int8 else np.float32)
    if window is None and values.dtype in (np.int16, np.float32):
        window = _shown_range(dataset, stored, values)
    return Pixels(np.ascontiguousarray(values), _used_bits(values, bits), window, inverted, spacing)


def _used_bits(values: NDArray[Any], bits: int) -> int:
    """The stated bits, or more where a codestream holds larger values than its header states."""
    if values.dtype.kind != "u" or bits >= values.dtype.itemsize * 8:
        return bits
    return max(bits, int(values.max()).bit_length())


def _shown_range(
    dataset: Dataset, stored: NDArray[Any], values: NDArray[Any]
) -> tuple[float, float]:
    """A window for rescaled or signed values that come without one: their range, padding aside."""
    padding = dataset.get("PixelPaddingValue")
    if isinstance(padding, int):
        seen = values[stored != padding]
        values = seen if seen.size else values
    return value_range(values)


def _rescale(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """Rescale (PS3.3 C.11.1.1.2): int16 where that is exact, float32 otherwise."""
    if slope == 1 and intercept == 0:
        return stored
    ends = [float(stored.min()) * slope + intercept, float(stored.max()) * slope + intercept]
    exact = slope.is_integer() and intercept.is_integer()
    if exact and _INT16.min <= min(ends) and max(ends) <= _INT16.max:
        return (stored.astype(np.int32) * int(slope) + int(intercept)).astype(np.int16)
    return (stored.astype(np.float64) * slope + intercept).astype(np.float32)


def _items(dataset: Dataset, frame: int, group: str) -> Iterable[Dataset]:
    """Where an attribute of a frame may stand, the most specific first (PS3.3 C.7.6.16).

    That is the frame's own functional group, the shared one, the top level.
    """
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for groups in (per_frame[frame : frame + 1], shared[:1]):
        for one in groups:
            yield from (one.get(group) or [])[:1]
    yield dataset


def _slope(dataset: Dataset, frame: int) -> tuple[float, float]:
    for item in _items(dataset, frame, "PixelValueTransformationSequence"):
        slope = _first(item.get("RescaleSlope"))
        if slope is not None:
            return slope or 1.0, _first(item.get("RescaleIntercept")) or 0.0
    return 1.0, 0.0


def _window(dataset: Dataset, frame: int) -> tuple[float, float] | None:
    """The first window (PS3.3 C.11.2.1.2); one without width is none."""
    for item in _items(dataset, frame, "FrameVOILUTSequence"):
        centre, width = _first(item.get("WindowCenter")), _first(item.get("WindowWidth"))
        if centre is not None and width is not None and width >= 1:
            return centre, width
    return None


def _spacing(dataset: Dataset, frame: int) -> tuple[float, float] | None:
    """Distance of rows and columns in mm: in the patient, else at the detector."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        for item in _items(dataset, frame, "PixelMeasuresSequence"):
            value = item.get(keyword)
            if value is not None and not isinstance(value, str) and len(value) == 2:
                rows, columns = float(value[0]), float(value[1])
                if rows > 0 and columns > 0:
                    return rows, columns
    return None


def _first(value: Any) -> float | None:
    """The first of one or several decimal strings, None if it is no finite number."""
    if value is None or value == "":
        return None
    if not isinstance(value, (str, int, float)):
        value = value[0] if len(value) else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _look_up(stored: NDArray[Any], first: int, entries: NDArray[Any]) -> NDArray[Any]:
    """Map values by a table whose first entry stands for ``first``; ends extend outwards."""
    index = np.clip(stored.astype(np.int64) - first, 0, len(entries) - 1)
    return np.ascontiguousarray(entries[index])


def _table_of(dataset: Dataset, item: Dataset) -> tuple[int, NDArray[Any]]:
    """First mapped value and entries of a LUT item (PS3.3 C.11.1.1.1), uint8 or uint16."""
    count, first, depth = (int(value) for value in item.LUTDescriptor)
    return _first_mapped(dataset, first), _entries(dataset, item.LUTData, count or 2**16, depth)


def _palette(dataset: Dataset) -> tuple[int, NDArray[Any]] | None:
    """First mapped value and (N, 3) entries; None if the palette is segmented (C.7.9.2)."""
    names = [f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")]
    if not all(name in dataset for name in names):
        return None
    descriptor = dataset.RedPaletteColorLookupTableDescriptor
    count, first, depth = (int(value) for value in descriptor)
    columns = [_entries(dataset, dataset[name].value, count or 2**16, depth) for name in names]
    entries = np.stack(columns, axis=-1)
    if entries.dtype == np.uint16:
        # Most writers declare 16 bits and fill in 8-bit values, as the high or as the low byte.
        if not (entries & 0xFF).any():
            entries = entries >> 8
        if entries.max() <= 0xFF:
            entries = entries.astype(np.uint8)
    return _first_mapped(dataset, first), entries


def _first_mapped(dataset: Dataset, first: int) -> int:
    """The descriptor's second value is signed only where the pixels are (PS3.3 C.11.1.1.1)."""
    if dataset.get("PixelRepresentation") == 1 and first > _INT16.max:
        return first - 2**16
    return first


def _entries(dataset: Dataset, content: Any, count: int, depth: int) -> NDArray[Any]:
    """Entries of a lookup table from bytes or numbers; 8-bit ones may fill 16 allocated."""
    if not isinstance(content, bytes):
        values = np.atleast_1d(np.asarray(content, np.int64)) & 0xFFFF
    else:
        little = dataset.file_meta.TransferSyntaxUID != ExplicitVRBigEndian
        wide = len(content) >= 2 * count
        values = np.frombuffer(content, ("<u2" if little else ">u2") if wide else "u1")
    if len(values) < count:
        raise RejectedImage(RejectReason.CORRUPT, f"{len(values)} of {count} entries of a table")
    return values[:count].astype(np.uint8 if depth <= 8 else np.uint16)
