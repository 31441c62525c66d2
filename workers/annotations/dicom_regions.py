"""The regions an ultrasound device names in its headers (PS3.3 C.8.5.5)."""

import io
from collections.abc import Mapping
from types import MappingProxyType

from pydicom import dcmread
from pydicom.dataset import Dataset

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.annotations.checks import Given
from workers.pixels.decode.guard import quiet, rejecting
from workers.pixels.decode.sniff import sniff

FORMATS: Mapping[int, str] = MappingProxyType(
    {0: "none", 1: "2d", 2: "m_mode", 3: "spectral", 4: "waveform", 5: "graphics"}
)
"""Region Spatial Format (0018,6012) as category (PS3.3 C.8.5.5.1.1)."""

_SEQUENCE = "SequenceOfUltrasoundRegions"
_EDGES = (
    "RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1",
)  # fmt: skip


def ultrasound_regions(data: bytes) -> list[Given]:
    """Read the regions (0018,6011) of a file; none for one that is no DICOM or names none.

    The corners are pixels that belong to the region, so its width is max - min + 1.

    Raises:
        RejectedImage: if the header can't be read.
    """
    with rejecting(), quiet():
        if sniff(data) != "dicom":
            return []
        header = dcmread(
            io.BytesIO(data), force=True, stop_before_pixels=True, specific_tags=[_SEQUENCE]
        )
        items = header.get(_SEQUENCE) or []
        return [_region(f"region {number}", item) for number, item in enumerate(items, 1)]


def _region(name: str, item: Dataset) -> Given:
    spatial = item.get("RegionSpatialFormat")
    category = FORMATS.get(int(spatial)) if spatial is not None else None
    fault = None
    if category is None:
        fault = RejectedImage(RejectReason.UNKNOWN_CATEGORY, f"the spatial format {spatial}")
    edges = [item.get(keyword) for keyword in _EDGES]
    if any(edge is None for edge in edges):
        return Given(name, category, None, None, None, None, fault=fault)
    left, top, right, bottom = (float(edge) for edge in edges)
    return Given(name, category, left, top, right - left + 1, bottom - top + 1, fault=fault)
