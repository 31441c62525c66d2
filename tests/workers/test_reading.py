"""From source bytes to prepared images."""

import io

import cv2
import numpy as np
import pytest

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers import reading
from workers.pixels.steps import Recipe
from workers.reading import Preparer


def _png(array: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", array)[1].tobytes())


def _reason(found: object) -> RejectReason:
    assert isinstance(found, RejectedImage)
    return found.reason


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_come_first(channels: int) -> None:
    colour = np.zeros((32, 32, 3), np.uint8)
    colour[:] = (10, 60, 200)  # OpenCV writes blue, green, red
    preparer = Preparer(Recipe(size=16, channels=channels).to_dict())
    found = preparer.prepare(_png(colour), 0)
    assert isinstance(found, np.ndarray)
    assert found.shape == (channels, 16, 16)
    assert found.flags["C_CONTIGUOUS"]
    if channels == 3:
        assert found[:, 8, 8].tolist() == [200, 60, 10]


def test_a_reject_is_an_answer_and_no_exception() -> None:
    preparer = Preparer(Recipe(size=16).to_dict())
    given = RejectedImage(RejectReason.GONE_DURING_RUN)
    good = _png(np.full((20, 20), 90, np.uint8))
    found = preparer.prepare_all([given, b"", good, good[:30]], [0, 0, 0, 0])
    assert found[0] is given
    assert _reason(found[1]) is RejectReason.EMPTY_FILE
    assert isinstance(found[2], np.ndarray)
    assert isinstance(found[3], RejectedImage)


def test_an_unforeseen_exception_rejects_by_class_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError("patient Miller")

    monkeypatch.setattr(reading, "apply", fail)
    found = Preparer(Recipe(size=16).to_dict()).prepare(_png(np.full((20, 20), 90, np.uint8)), 0)
    assert _reason(found) is RejectReason.FAILED
    assert isinstance(found, RejectedImage)
    assert found.detail == "ZeroDivisionError"


def test_a_file_of_several_frames_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = reading.open_image

    def count(blob: bytes) -> object:
        opened.append(blob)
        return real(blob)

    monkeypatch.setattr(reading, "open_image", count)
    stack = _npz(np.stack([np.full((20, 20), level, np.uint8) for level in (10, 20, 30)]))
    other = _png(np.full((20, 20), 90, np.uint8))
    preparer = Preparer(Recipe(size=16).to_dict())
    found = preparer.prepare_all([stack] * 3 + [other], [0, 1, 2, 0])
    levels = [image.mean() for image in found if isinstance(image, np.ndarray)]
    assert levels == [10, 20, 30, 90]
    assert opened == [stack, other]


def _npz(images: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, train_images=images, train_labels=np.zeros((len(images), 1), np.uint8))
    return buffer.getvalue()
