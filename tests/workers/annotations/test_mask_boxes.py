"""Boxes around masks against SciPy's labelling, and masks brought to the size of their image."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.annotations.masks import MaskBox, fitted, mask_boxes


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
