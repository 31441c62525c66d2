"""Boxes around masks against SciPy's labelling, and masks brought to the size of their image."""

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.annotations.masks import MaskBox, fitted, inside, mask_boxes
from workers.pixels.pixels import Pixels


@given(st.integers(0, 10_000), st.floats(0, 0.5))
def test_boxes_of_components_are_those_of_scipy(seed: int, density: float) -> None:
    mask_HW = np.random.default_rng(seed).random((12, 17)) < density
    labels_HW, _ = ndimage.label(mask_HW, structure=np.ones((3, 3)))
    expected = [
        MaskBox(x.start, y.start, x.stop - x.start, y.stop - y.start, int((labels_HW == n).sum()))
        for n, (y, x) in enumerate(ndimage.find_objects(labels_HW), 1)
    ]
    found = mask_boxes(mask_HW, components=True)
    assert sorted(found, key=repr) == sorted(expected, key=repr)
    assert [box.y for box in found] == sorted(box.y for box in found)
    large = mask_boxes(mask_HW, components=True, min_pixels=3)
    assert large == [box for box in found if box.area >= 3]
    whole = mask_boxes(mask_HW, components=False)
    rows, columns = np.nonzero(mask_HW)
    if not len(rows):
        assert whole == []
        return
    (box,) = whole
    assert (box.x, box.x + box.w) == (columns.min(), columns.max() + 1)
    assert (box.y, box.y + box.h, box.area) == (rows.min(), rows.max() + 1, mask_HW.sum())


def test_a_mask_of_another_size_is_resized_to_the_nearest_pixel() -> None:
    mask_HW = np.zeros((20, 30), np.bool_)
    mask_HW[5:10, 4:6] = True
    (box,) = mask_boxes(fitted(mask_HW, 40, 60), components=False)
    assert box == MaskBox(8, 10, 4, 10, 40)
    assert fitted(mask_HW, 20, 30) is mask_HW
    # Rounding of a copy made smaller: 61 x 40 to 30 x 20 is 1.6 % off.
    assert fitted(mask_HW, 40, 61).shape == (40, 61)
    reference = cv2.resize(mask_HW.astype(np.uint8), (61, 40), interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(fitted(mask_HW, 40, 61), reference > 0)


@pytest.mark.parametrize("size", [(30, 20), (40, 62)])
def test_a_mask_that_lies_on_its_side_or_was_cut_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(RejectedImage, match="its mask is 30 x 20, the image") as refused:
        fitted(np.zeros((20, 30), np.bool_), *size)
    assert refused.value.reason is RejectReason.SIZE_MISMATCH


def _pixels(array: NDArray[Any], *, bits: int | None = None, inverted: bool = False) -> Pixels:
    return Pixels(array, bits or array.dtype.itemsize * 8, None, inverted, None)


def _labels(*levels: int, dtype: str = "uint8") -> NDArray[Any]:
    """Stripes of labels, 3 x 20 px each, on a background of 0."""
    labels_HW = np.zeros((4 * len(levels) + 4, 40), dtype)
    for number, level in enumerate(levels):
        labels_HW[4 * number + 2 : 4 * number + 5, 10:30] = level
    return labels_HW


@pytest.mark.parametrize(
    ("dtype", "levels"),
    [
        ("uint8", (255,)),
        ("uint8", (1, 2, 3)),
        ("uint8", (60, 200)),
        ("uint8", (1, 255)),  # VOC: classes, and 255 around them
        ("uint8", (85, 170, 255)),  # 2 bits, as a PNG of them is shown
        ("uint8", tuple(range(1, 256))),  # one by one
        ("uint16", (1, 2, 3)),
        ("uint16", (255,)),
        ("uint16", (100, 65535)),
        ("uint16", (1, 40000)),
        ("int16", (1, 2)),
        ("float32", (1, 3)),
    ],
)
def test_all_labels_are_inside(dtype: str, levels: tuple[int, ...]) -> None:
    labels_HW = _labels(*levels, dtype=dtype)
    assert np.array_equal(inside(_pixels(labels_HW)), labels_HW != 0)


def test_labels_in_colour_and_of_few_bits_are_inside() -> None:
    labels_HW = _labels(1, 255)
    blue_HWC = np.stack([labels_HW * 0, labels_HW * 0, labels_HW], axis=2)
    assert np.array_equal(inside(_pixels(blue_HWC)), labels_HW > 0)
    assert np.array_equal(inside(_pixels(_labels(1), bits=1)), _labels(1) > 0)
    inverted = _pixels(4095 - _labels(5, dtype="uint16"), bits=12, inverted=True)  # MONOCHROME1
    assert np.array_equal(inside(inverted), _labels(5) > 0)
    shifted_HW = _labels(1, 2, dtype="int16") - np.int16(1024)  # rescaled as CT
    assert np.array_equal(inside(_pixels(shifted_HW)), shifted_HW > -1024)
    assert not inside(_pixels(np.full((4, 4), np.nan, np.float32))).any()
    for dtype in (np.uint8, np.uint16, np.int16, np.float32):
        assert not inside(_pixels(np.zeros((4, 4), dtype))).any()
        assert inside(_pixels(np.full((1, 4), 3, dtype))).all()


def _ellipse(size: int = 240) -> NDArray[np.uint8]:
    drawn_HW = np.zeros((size, size + 20), np.uint8)
    return np.asarray(cv2.ellipse(drawn_HW, (130, 110), (70, 40), 30.0, 0, 360, 255, -1))


def _jpeg(view: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    data = cv2.imencode(".jpg", view, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), np.uint8)


@pytest.mark.parametrize("quality", [5, 10, 20, 30, 50, 75, 90, 95, 99, 100])
def test_the_noise_of_a_jpeg_is_not_inside(quality: int) -> None:
    for view in (_ellipse(), cv2.rectangle(_ellipse() * 0, (13, 21), (90, 77), 255, -1)):
        soft_HW = _jpeg(view, quality)
        found_HW = inside(_pixels(soft_HW))
        assert np.array_equal(found_HW, soft_HW >= 128)
        assert (found_HW != (view > 0)).mean() < 0.005


@pytest.mark.parametrize(
    "soften",
    [
        lambda view: cv2.resize(view, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        lambda view: cv2.resize(view, None, fx=2.5, fy=2.5, interpolation=cv2.INTER_LINEAR),
        lambda view: cv2.resize(view, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC),
        lambda view: cv2.GaussianBlur(view, None, 2),
        lambda view: cv2.GaussianBlur(view, None, 12),
        lambda view: view // 255 * 230 + 20,  # a background that is not quite black
    ],
)
def test_soft_edges_end_at_half_of_the_range(soften: Any) -> None:
    for view in (_ellipse(), cv2.rectangle(_ellipse() * 0, (13, 21), (90, 77), 255, -1)):
        soft_HW = np.asarray(soften(view), np.uint8)
        assert np.array_equal(inside(_pixels(soft_HW)), soft_HW >= 128)
        wide_HW = soft_HW.astype(np.uint16) * 257
        assert np.array_equal(inside(_pixels(wide_HW)), soft_HW >= 128)
