"""Prepared pixels survive their bytes; other bytes are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.pixels.encoding import decode, encode

SIDES = st.integers(1, 20)
SHAPES = st.one_of(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES, st.just(3)))


@given(SHAPES.flatmap(lambda shape: arrays(np.uint8, shape)))
def test_any_pixels_come_back(pixels: np.ndarray) -> None:
    found = decode(encode(pixels), *pixels.shape[:2])
    assert found.dtype == np.uint8
    assert found.shape == pixels.shape
    assert np.array_equal(found, pixels)


@given(arrays(np.uint8, st.tuples(SIDES, SIDES)))
def test_grey_in_colour_comes_back_and_is_stored_once(grey: np.ndarray) -> None:
    colour = np.repeat(grey[..., None], 3, axis=2)
    data = encode(colour)
    assert len(data) == 1 + grey.size
    assert np.array_equal(decode(data, *grey.shape), colour)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_coloured_sample_is_enough_for_colour(channel: int) -> None:
    pixels = np.full((4, 6, 3), 100, np.uint8)
    pixels[3, 5, channel] = 101
    assert np.array_equal(decode(encode(pixels), 4, 6), pixels)


def test_the_bytes_are_what_the_table_says() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    colour = np.stack([grey, grey + 10, grey + 20], axis=2)
    assert list(encode(grey)) == [1, 0, 1, 2, 3, 4, 5]
    assert list(encode(colour)) == [3, *range(6), *range(10, 16), *range(20, 26)]


def test_turned_and_sliced_pixels_are_encoded_as_they_look() -> None:
    whole = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    for pixels in (whole[::2, ::-1], whole[..., 1].T, whole.transpose(1, 0, 2)):
        assert np.array_equal(decode(encode(pixels), *pixels.shape[:2]), pixels)


def test_colour_lies_channels_first_and_nothing_is_copied() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    found = decode(encode(colour), 5, 4)
    assert found.transpose(2, 0, 1).flags["C_CONTIGUOUS"]
    assert not found.flags["OWNDATA"]
    assert not found.flags["WRITEABLE"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\x01" + bytes(19),
        b"\x01" + bytes(21),
        b"\x02" + bytes(60),
        b"\x03" + bytes(20),
        b"\x00" + bytes(20),
        b"\x04" + bytes(20),
        bytes(60),
        b"\x89PNG\r\n\x1a\n" + bytes(13),
    ],
)
def test_other_bytes_are_corrupt(data: bytes) -> None:
    with pytest.raises(RejectedImage) as caught:
        decode(data, 4, 5)
    assert caught.value.reason is RejectReason.CORRUPT
    assert f"{len(data)} bytes" in caught.value.detail


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((2, 2), np.uint16), np.zeros((2, 2, 4), np.uint8), np.zeros(4, np.uint8)],
)
def test_what_is_no_prepared_image_is_not_encoded(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\(H, W\) or \(H, W, 3\) uint8: got"):
        encode(pixels)
