"""A recipe's steps on tensors against OpenCV, NumPy and PyTorch's own resizing."""

import io
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from workers.pixels import device_steps
from workers.pixels.colour import grey
from workers.pixels.decode.orientation import upright
from workers.pixels.decode.types import Limits
from workers.pixels.device_steps import (
    decode_on,
    device_jpeg,
    fitted,
    luma,
    neighbours,
    resize,
    turned,
)
from workers.pixels.pixels import Pixels
from workers.pixels.recipe import prepare
from workers.pixels.steps import Recipe

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads gain nothing on images this small, and wait for each other on busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """An RGB picture without hard edges, so that JPEG changes little of it."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 17 + shift) + np.cos(y / 23 - shift) for shift in (0.0, 0.4, 0.9)]
    return np.rint(np.stack(waves, axis=2) * 60 + 128).astype(np.uint8)


def tensor(view: np.ndarray) -> torch.Tensor:
    """(H, W) or (H, W, 3) as (1, C, H, W)."""
    return torch.from_numpy(np.atleast_3d(view).transpose(2, 0, 1)[None].copy())


def jpeg(view: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(view).save(buffer, "JPEG", quality=92, **options)
    return buffer.getvalue()


def test_luma_is_that_of_the_cpu_path_to_the_bit() -> None:
    view = noise(300, 301, 3)
    assert np.array_equal(luma(tensor(view))[0, 0].numpy(), grey(view))


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("channels", [1, 3])
def test_turning_is_that_of_the_cpu_path(orientation: int, channels: int) -> None:
    view = noise(5, 8, channels)
    found = turned(tensor(view)[0], orientation)
    assert np.array_equal(found.numpy().transpose(1, 2, 0), upright(view, orientation))


@given(st.integers(1, 500), st.integers(1, 500))
def test_the_weights_of_a_pixel_add_up(source: int, target: int) -> None:
    index, weight = neighbours(source, target)
    assert index.shape == weight.shape
    assert index.min() >= 0
    assert index.max() < source
    assert weight.min() >= 0
    assert np.abs(weight.sum(axis=0) - 1).max() < 1e-5
    if target <= source:  # every source pixel counts as much as any other
        shares = np.bincount(index.ravel(), weight.ravel(), minlength=source)
        assert np.abs(shares - target / source).max() < 1e-4


def test_shrinking_weighs_pixels_by_their_share_of_the_area() -> None:
    view = noise(70, 90)
    # Each pixel drawn 3 x 4 times, then plain means over blocks: 70 -> 30 and 90 -> 40 exactly.
    fine = view.repeat(3, axis=0).repeat(4, axis=1).astype(np.float64)
    expected = fine.reshape(30, 7, 40, 9).mean(axis=(1, 3))
    found = resize(tensor(view), 30, 40)[0, 0].numpy()
    assert np.abs(found - expected).max() <= 0.5 + 1e-4


def test_enlarging_is_linear_as_in_pytorch() -> None:
    image = tensor(noise(37, 53, 3))
    expected = torch.nn.functional.interpolate(
        image.double(), size=(90, 111), mode="bilinear", align_corners=False
    )
    assert (resize(image, 90, 111) - expected).abs().max() <= 0.5 + 1e-4


SIZES = [(480, 640), (600, 300), (50, 70), (224, 224), (1000, 300), (1, 1), (3, 900), (225, 223)]


@pytest.mark.parametrize("resize_mode", ["letterbox", "stretch"])
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_steps_are_those_of_the_cpu_path(
    resize_mode: str, height: int, width: int, channels: int
) -> None:
    view = noise(height, width, 3)
    recipe = Recipe(size=224, channels=channels, resize=resize_mode)
    expected = prepare(recipe, Pixels(view, 8, None, False, None)).array
    found = fitted(recipe, tensor(view))[0].permute(1, 2, 0).numpy()
    found = found[..., 0] if channels == 1 else found
    assert found.dtype == np.uint8
    assert found.shape == expected.shape
    # Where one axis shrinks and the other grows, the CPU path rounds twice.
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_an_image_is_the_same_whatever_its_batch() -> None:
    images = torch.cat([tensor(noise(301, 407, 3, seed=seed)) for seed in range(5)])
    recipe = Recipe(size=96)
    together = fitted(recipe, images)
    alone = torch.cat([fitted(recipe, images[index : index + 1]) for index in range(5)])
    assert torch.equal(together, alone)


def test_grey_images_of_a_colour_recipe_have_three_equal_channels() -> None:
    found = fitted(Recipe(size=64, channels=3), tensor(noise(80, 80)))
    assert found.shape == (1, 3, 64, 64)
    assert torch.equal(found[:, 0], found[:, 2])


def test_plain_files_are_for_the_device() -> None:
    view = smooth(40, 60)
    colour = device_jpeg(jpeg(view))
    assert colour is not None
    assert colour.colour
    assert colour.orientation == 1
    single = device_jpeg(jpeg(view[..., 0]))
    assert single is not None
    assert not single.colour
    assert device_jpeg(jpeg(view, progressive=True)) is not None


def _cmyk() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(smooth(40, 60)).convert("CMYK").save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff",
        bytes(cv2.imencode(".png", noise(20, 20))[1]),
        jpeg(smooth(40, 60))[:-30],
        _cmyk(),
        jpeg(smooth(40, 60), keep_rgb=True),
    ],
    ids=["empty", "stub", "png", "cut off", "CMYK", "RGB samples"],
)
def test_other_files_are_for_the_cpu(data: bytes) -> None:
    assert device_jpeg(data) is None


def test_files_beyond_the_limits_are_for_the_cpu_to_reject() -> None:
    data = jpeg(smooth(40, 60))
    assert device_jpeg(data, Limits(max_pixels=2399)) is None
    assert device_jpeg(data, Limits(max_pixels=2400)) is not None
    assert device_jpeg(data, Limits(max_bytes=len(data) - 1)) is None


def test_adobes_marker_says_what_the_samples_are() -> None:
    data = jpeg(smooth(40, 60))
    for transform, taken in ((0, False), (1, True), (2, False)):
        adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
        assert (device_jpeg(data[:2] + adobe + data[2:]) is not None) == taken


def test_a_file_that_cannot_be_decoded_does_not_spoil_its_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []
    real = device_steps.decode_jpeg

    def refuse(sources: list[torch.Tensor], **options: object) -> list[torch.Tensor]:
        calls.append(len(sources))
        if any(bytes(source.numpy()[-4:-2]) == b"\xab\xcd" for source in sources):
            raise RuntimeError("Failed to decode jpeg stream: 2")
        found: list[torch.Tensor] = real(sources, **options)
        return found

    monkeypatch.setattr(device_steps, "decode_jpeg", refuse)
    files = [jpeg(smooth(40, 60 + index)) for index in range(6)]
    files[4] = files[4][:-4] + b"\xab\xcd\xff\xd9"
    jpegs = [found for data in files if (found := device_jpeg(data)) is not None]
    found = decode_on(CPU, jpegs)
    assert [image is None for image in found] == [False] * 4 + [True, False]
    assert [image.shape[2] for image in found if image is not None] == [60, 61, 62, 63, 65]
    assert calls == [6, 3, 3, 1, 2, 1, 1]


@pytest.mark.parametrize(
    "message", ["CUDA out of memory. Tried to allocate 2 GiB", "Failed to decode batch: 5"]
)
def test_a_full_device_is_no_broken_file(monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(device_steps, "decode_jpeg", fail)
    found = device_jpeg(jpeg(smooth(40, 60)))
    assert found is not None
    with pytest.raises(torch.OutOfMemoryError):
        decode_on(CPU, [found])
