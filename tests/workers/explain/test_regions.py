"""Regions of masks and boxes: what is inside, what is joined, what is refused."""

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from schemas.errors import RejectedImage
from schemas.plan import Blob
from schemas.reasons import RejectReason
from workers.explain.regions import read_region


def _png(array: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", array)[1].tobytes())


def _mask(y: slice, x: slice, value: int = 255, shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[y, x] = value
    return mask


def _read(masks: Sequence[Blob], boxes: Sequence[Sequence[float]] = ()) -> np.ndarray | None:
    return read_region(masks, boxes, 40, 60)


@pytest.mark.parametrize("value", [255, 200, 1])
def test_white_is_inside_or_any_label_where_nothing_is_white(value: int) -> None:
    mask = _mask(slice(5, 9), slice(10, 30), value)
    found = _read([_png(mask)])
    assert found is not None
    assert np.array_equal(found, mask > 0)


def test_labels_of_two_lungs_are_one_region_and_noise_beside_white_is_none() -> None:
    lungs = _mask(slice(5, 30), slice(5, 20), 1) + _mask(slice(5, 30), slice(35, 50), 2)
    found = _read([_png(lungs)])
    assert found is not None and found.sum() == 2 * 25 * 15
    noisy = np.where(_mask(slice(5, 9), slice(10, 30)) > 0, 250, 20).astype(np.uint8)
    found = _read([_png(noisy)])
    assert found is not None and found.sum() == 4 * 20


def test_masks_and_boxes_are_joined() -> None:
    masks = [_png(_mask(slice(0, 2), slice(0, 2))), _png(_mask(slice(5, 6), slice(5, 7)))]
    found = _read(masks, [[20.2, 30.0, 9.9, 50.0], [-5, -5, 6, 6]])
    assert found is not None
    expected = np.zeros((40, 60), np.bool_)
    expected[0:2, 0:2] = expected[5:6, 5:7] = expected[30:40, 20:30] = True
    assert np.array_equal(found, expected)
    assert _read([]) is None
    empty = _read([_png(_mask(slice(0, 0), slice(0, 0)))])
    assert empty is not None and not empty.any()


def test_a_smaller_copy_of_a_mask_fits_and_another_shape_does_not() -> None:
    half = _mask(slice(5, 10), slice(10, 20), shape=(20, 30))
    found = _read([_png(half)])
    assert found is not None
    assert np.array_equal(found, _mask(slice(10, 20), slice(20, 40)) > 0)
    with pytest.raises(RejectedImage, match="its mask is 40 x 40, the image 60 x 40") as refused:
        _read([_png(_mask(slice(0, 1), slice(0, 1), shape=(40, 40)))])
    assert refused.value.reason is RejectReason.SIZE_MISMATCH


def test_a_mask_that_can_not_be_read_rejects_its_image() -> None:
    with pytest.raises(RejectedImage, match="empty_file: its mask"):
        _read([b""])
    with pytest.raises(RejectedImage, match="gone_during_run: its mask"):
        _read([RejectedImage(RejectReason.GONE_DURING_RUN)])
