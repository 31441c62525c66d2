"""Tests of decoding MedMNIST archives."""

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.pixels.decode import Limits, open_image


def archive(**arrays: Any) -> bytes:
    sink = io.BytesIO()
    np.savez_compressed(sink, **arrays)
    return sink.getvalue()


def rejection(data: bytes, limits: Limits | None = None) -> RejectedImage:
    with pytest.raises(RejectedImage) as rejected:
        open_image(data, limits)
    return rejected.value


@pytest.fixture
def images() -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(0, 256, (5, 8, 9), dtype=np.uint8)


def test_every_image_is_a_frame_with_label_and_part(images: np.ndarray[Any, Any]) -> None:
    data = archive(
        train_images=images[:3],
        train_labels=np.array([[1], [0], [1]], np.uint8),
        test_images=images[3:],
        test_labels=np.array([0, 7]),
    )
    image = open_image(data)
    assert image.format == "npz"
    assert [(one.split, one.label) for one in image.frames] == [
        ("train", "1"), ("train", "0"), ("train", "1"), ("test", "0"), ("test", "7"),
    ]  # fmt: skip
    for number, facts in enumerate(image.frames):
        assert (facts.height, facts.width, facts.bits, facts.channels) == (8, 9, 8, 1)
        np.testing.assert_array_equal(image.pixels(number).array, images[number])


def test_colour_deep_and_fortran_arrays_come_back() -> None:
    colour = np.random.default_rng(2).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    deep = np.asfortranarray(
        np.random.default_rng(3).integers(0, 65536, (2, 4, 5), dtype=np.uint16)
    )
    image = open_image(archive(train_images=colour, val_images=deep.astype(">u2")))
    np.testing.assert_array_equal(image.pixels(1).array, colour[1])
    pixels = image.pixels(3)
    assert pixels.array.dtype.isnative
    assert pixels.bits == 16
    np.testing.assert_array_equal(pixels.array, deep[1])
    assert image.frames[0].label is None


def test_several_labels_of_an_image_are_joined(images: np.ndarray[Any, Any]) -> None:
    labels = np.array([[0, 1, 1]] * 5)
    image = open_image(archive(train_images=images, train_labels=labels))
    assert image.frames[0].label == "0|1|1"


def test_other_archives_are_no_data_set(images: np.ndarray[Any, Any]) -> None:
    assert rejection(archive(images=images)).reason == RejectReason.UNKNOWN_FORMAT
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as other:
        other.writestr("a.txt", "hello")
    assert rejection(sink.getvalue()).reason == RejectReason.UNKNOWN_FORMAT
    crowded = {f"x{number}": np.zeros(1) for number in range(70)}
    crowded["train_images"] = images
    assert rejection(archive(**crowded)).reason == RejectReason.UNKNOWN_FORMAT


@pytest.mark.parametrize(
    "arrays",
    [
        {"train_images": np.zeros((2, 3, 4), np.float32)},
        {"train_images": np.zeros((2, 6, 6, 6), np.uint8)},
        {"train_images": np.zeros(4, np.uint8)},
        {"train_images": np.array([{"a": 1}], object)},
    ],
)
def test_arrays_that_are_no_pictures_are_rejected(arrays: dict[str, Any]) -> None:
    assert rejection(archive(**arrays)).reason == RejectReason.UNSUPPORTED_PIXELS


def test_labels_must_be_as_many_as_images(images: np.ndarray[Any, Any]) -> None:
    reject = rejection(archive(train_images=images, train_labels=np.zeros(4)))
    assert (reject.reason, reject.detail) == (RejectReason.CORRUPT, "5 images and 4 labels")


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_pickles_are_never_loaded(tmp_path: Path, images: np.ndarray[Any, Any]) -> None:
    mark = tmp_path / "mark"
    data = archive(train_images=images, train_labels=np.array([Trap(mark)] * 5, object))
    assert rejection(data).reason == RejectReason.UNSUPPORTED_PIXELS
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as other:
        other.writestr("train_images.npy", pickle.dumps(Trap(mark)))
    assert rejection(sink.getvalue()).reason in (RejectReason.CORRUPT, RejectReason.TRUNCATED)
    assert not mark.exists()


def test_bombs_are_rejected_before_they_are_inflated() -> None:
    data = archive(train_images=np.zeros((2000, 100, 100), np.uint8))
    assert len(data) < 100_000
    assert rejection(data, Limits(max_bytes=1_000_000)).reason == RejectReason.TOO_MANY_BYTES
    wide = archive(train_images=np.zeros((1, 100, 100), np.uint8))
    assert rejection(wide, Limits(max_pixels=9_999)).reason == RejectReason.TOO_MANY_PIXELS


def test_a_header_that_promises_more_than_there_is_allocates_nothing() -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000, 500, 500), }"
    header += b" " * (117 - len(header)) + b"\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(100)
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as other:
        other.writestr("train_images.npy", content)
    assert rejection(sink.getvalue()).reason == RejectReason.TRUNCATED


def test_damage_is_found_when_opened(images: np.ndarray[Any, Any]) -> None:
    data = archive(train_images=images)
    assert rejection(data[: len(data) // 2]).reason == RejectReason.CORRUPT
    broken = bytearray(data)
    broken[len(data) // 3] ^= 0xFF
    assert rejection(bytes(broken)).reason == RejectReason.CORRUPT


def test_the_real_data_set_equals_numpy(shared_data: Path) -> None:
    path = shared_data / "medmnist" / "pneumoniamnist.npz"
    image = open_image(path.read_bytes())
    with np.load(path, allow_pickle=False) as arrays:
        assert len(image.frames) == 3882 + 524 + 624
        for part, start in (("train", 0), ("val", 3882), ("test", 3882 + 524)):
            labels = arrays[f"{part}_labels"].ravel()
            frames = image.frames[start : start + len(labels)]
            assert [int(one.label or -1) for one in frames] == labels.tolist()
            assert {one.split for one in frames} == {part}
            np.testing.assert_array_equal(
                image.pixels(start + 7).array, arrays[f"{part}_images"][7]
            )
