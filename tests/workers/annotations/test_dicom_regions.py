"""Regions of real ultrasound headers."""

import io
from contextlib import nullcontext
from pathlib import Path

import pytest
from pydicom import dcmread

from schemas.errors import RejectedImage
from workers.annotations.checks import Categories, check_all
from workers.annotations.dicom_regions import FORMATS, ultrasound_regions


def test_regions_of_real_headers(shared_data: Path) -> None:
    found = 0
    for path in sorted((shared_data / "dicom").rglob("*.dcm")):
        data = path.read_bytes()
        if b"\x18\x00\x11\x60" not in data:
            continue
        header = dcmread(io.BytesIO(data), stop_before_pixels=True)
        regions = ultrasound_regions(data)
        items = header.SequenceOfUltrasoundRegions
        assert len(regions) == len(items)
        for region, item in zip(regions, items, strict=True):
            assert region.fault is None
            assert region.category == FORMATS[item.RegionSpatialFormat]
            assert region.x == item.RegionLocationMinX0
            assert region.x + region.w - 1 == item.RegionLocationMaxX1  # type: ignore[operator]
            assert region.y + region.h - 1 == item.RegionLocationMaxY1  # type: ignore[operator]
        # Samples were made smaller after their device had named the regions: these do not fit.
        right = max(one.RegionLocationMaxX1 for one in items)
        bottom = max(one.RegionLocationMaxY1 for one in items)
        within = right <= header.Columns and bottom <= header.Rows
        size = (header.Rows, header.Columns)
        with nullcontext() if within else pytest.raises(RejectedImage, match="outside_image"):
            assert len(check_all(regions, size, Categories({}), None)) == len(items)
        found += len(regions)
    if not found:
        pytest.skip("no file of the real data names ultrasound regions")


def test_what_is_no_dicom_has_none() -> None:
    assert ultrasound_regions(b"\x89PNG\r\n\x1a\n" + bytes(100)) == []
