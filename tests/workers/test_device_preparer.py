"""Preparing on a device, tried on the CPU with the same code, against the CPU path."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file

from schemas.errors import RaywardError, RejectedImage
from schemas.reasons import RejectReason
from workers import device_preparer
from workers.device_preparer import DevicePreparer
from workers.pixels import device_steps
from workers.pixels.recipe import Prepared, prepare
from workers.pixels.steps import NVJPEG_DECODER, Recipe
from workers.reading import FrameReader

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads gain nothing on images this small, and wait for each other on busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def on_device(device: str = "cpu", *, batch: int = 32, **recipe: object) -> DevicePreparer:
    made = Recipe(decoder=NVJPEG_DECODER, **recipe)
    return DevicePreparer(made, device, FrameReader(), batch=batch)


def on_cpu(blob: bytes, frame: int = 0, **recipe: object) -> Prepared:
    made = Recipe(**recipe)
    found = FrameReader().read(blob, frame, lambda pixels: prepare(made, pixels))
    assert isinstance(found, Prepared)
    return found


def apart(found: object, expected: Prepared) -> np.ndarray:
    """How many levels two images are apart; their geometry is the same."""
    assert isinstance(found, Prepared)
    assert found.geometry == expected.geometry
    assert found.array.shape == expected.array.shape
    assert found.array.dtype == np.uint8
    assert found.array.flags["C_CONTIGUOUS"]
    difference: np.ndarray = np.abs(found.array.astype(int) - expected.array)
    return difference


def picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 17 + shift) + np.cos(y / 23 - shift) for shift in (0.0, 0.4, 0.9)]
    return np.rint(np.stack(waves, axis=2) * 60 + 128).astype(np.uint8)


def encoded(view: np.ndarray, form: str = "JPEG", mode: str | None = None, **options: object):
    buffer = io.BytesIO()
    image = Image.fromarray(view)
    (image.convert(mode) if mode else image).save(buffer, form, **options)
    return buffer.getvalue()


def oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(60, 90), exif=exif)


def dicom() -> bytes:
    return Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()


def png16() -> bytes:
    deep = picture(70, 50)[..., 0].astype(np.uint16) * 200
    return bytes(cv2.imencode(".png", deep)[1])


BLOBS: dict[str, Callable[[], bytes]] = {
    "colour": lambda: encoded(picture(300, 410)),
    "colour 4:4:4": lambda: encoded(picture(300, 411), subsampling=0),
    "grey": lambda: encoded(picture(300, 410)[..., 0]),
    "progressive": lambda: encoded(picture(300, 410), progressive=True),
    "small": lambda: encoded(picture(30, 20)),
    "CMYK": lambda: encoded(picture(60, 90), mode="CMYK"),
    "RGB samples": lambda: encoded(picture(60, 90), keep_rgb=True),
    "png": lambda: encoded(picture(60, 90), "PNG"),
    "16 bits": png16,
    "dicom": dicom,
} | {f"turned {one}": lambda one=one: oriented(one) for one in range(1, 9)}


@pytest.mark.parametrize(
    "recipe",
    [
        {"size": 96},
        {"size": 96, "channels": 3},
        {"size": 96, "resize": "stretch"},
        {"size": 96, "window": (100.0, 80.0)},
    ],
    ids=["grey", "colour", "stretched", "windowed"],
)
def test_images_of_all_kinds_are_prepared_as_on_the_cpu(recipe: dict[str, object]) -> None:
    blobs = [make() for make in BLOBS.values()]
    preparer = on_device(batch=7, **recipe)
    found = preparer.prepare_all(blobs, [0] * len(blobs))
    assert len(found) == len(blobs)
    for name, blob, one in zip(BLOBS, blobs, found, strict=True):
        assert apart(one, on_cpu(blob, **recipe)).max() <= 1, name
    assert preparer.refused == 0


def test_frames_of_a_file_keep_their_order() -> None:
    buffer = io.BytesIO()
    stack = np.stack([np.full((20, 20), level, np.uint8) for level in (10, 20, 30)])
    np.savez(buffer, train_images=stack, train_labels=np.zeros((3, 1), np.uint8))
    jpeg = encoded(np.full((20, 20), 200, np.uint8))
    blobs = [jpeg, buffer.getvalue(), buffer.getvalue(), jpeg, buffer.getvalue()]
    found = on_device(size=16).prepare_all(blobs, [0, 2, 0, 0, 1])
    levels = [one.array[8, 8] for one in found if isinstance(one, Prepared)]
    assert levels == [200, 30, 10, 200, 20]


def test_a_broken_file_is_rejected_alone() -> None:
    good = encoded(picture(60, 90))
    given = RejectedImage(RejectReason.GONE_DURING_RUN)
    blobs = [good, good[:-200], b"", given, good, good]
    found = on_device(size=32).prepare_all(blobs, [0, 0, 0, 0, 1, 0])
    reasons = [one.reason if isinstance(one, RejectedImage) else None for one in found]
    assert reasons == [
        None,
        RejectReason.TRUNCATED,
        RejectReason.EMPTY_FILE,
        RejectReason.GONE_DURING_RUN,
        RejectReason.FAILED,
        None,
    ]
    assert found[3] is given


def test_a_file_that_the_device_refuses_is_decoded_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = device_steps.decode_jpeg

    def refuse_wide(sources: list[torch.Tensor], **options: object) -> list[torch.Tensor]:
        decoded: list[torch.Tensor] = real(sources, **options)
        if any(image.shape[2] == 91 for image in decoded):
            raise RuntimeError("Failed to decode jpeg stream: 4")
        return decoded

    monkeypatch.setattr(device_steps, "decode_jpeg", refuse_wide)
    blobs = [encoded(picture(60, width)) for width in (90, 91, 92)]
    preparer = on_device(size=32)
    found = preparer.prepare_all(blobs, [0, 0, 0])
    for blob, one in zip(blobs, found, strict=True):
        assert apart(one, on_cpu(blob, size=32)).max() <= 1
    assert preparer.refused == 1


def test_a_full_device_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = device_preparer.fitted

    def room_for_two(recipe: Recipe, images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(recipe, images)

    monkeypatch.setattr(device_preparer, "fitted", room_for_two)
    blobs = [encoded(np.full((40, 40), level, np.uint8)) for level in range(50, 170, 10)]
    preparer = on_device(size=16, batch=8)
    found = preparer.prepare_all(blobs, [0] * 12)
    levels = [int(one.array[8, 8]) for one in found if isinstance(one, Prepared)]
    assert levels == list(range(50, 170, 10))
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2]
    # The next shard tries the whole batch again.
    preparer.prepare_all(blobs[:8], [0] * 8)
    assert sizes[8] == 8


def test_an_image_too_large_for_the_device_is_rejected_for_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = device_preparer.fitted

    def no_room_for_large(recipe: Recipe, images: torch.Tensor) -> torch.Tensor:
        if images.shape[3] > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(recipe, images)

    monkeypatch.setattr(device_preparer, "fitted", no_room_for_large)
    small, large = encoded(picture(60, 90)), encoded(picture(60, 120))
    found = on_device(size=32, batch=4).prepare_all([small, large, small], [0, 0, 0])
    assert isinstance(found[0], Prepared)
    assert isinstance(found[1], RejectedImage)
    assert found[1].reason is RejectReason.OUT_OF_MEMORY
    assert isinstance(found[2], Prepared)


def test_other_errors_of_a_device_end_the_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_recipe: Recipe, _images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(device_preparer, "fitted", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        on_device(size=32).prepare_all([encoded(picture(60, 90))], [0])


def test_without_a_gpu_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RaywardError, match="needs a GPU") as caught:
        on_device("cuda")
    assert "execution.gpus_per_worker" in str(caught.value)
    assert "preprocess.decoder: cpu" in str(caught.value)


def test_a_device_that_decodes_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_sources: object, **_options: object) -> None:
        raise RuntimeError("decode_jpegs_cuda: torchvision not compiled with nvJPEG support\nat x")

    monkeypatch.setattr(device_steps, "decode_jpeg", fail)
    with pytest.raises(RaywardError, match="decodes nothing here") as caught:
        on_device()
    assert "got decode_jpegs_cuda: torchvision not compiled with nvJPEG support." in str(
        caught.value
    )
    assert "rayward doctor" in str(caught.value)


def test_a_recipe_of_another_decoder_is_refused() -> None:
    with pytest.raises(ValueError, match="prepares nvjpeg-1: got cpu-1"):
        DevicePreparer(Recipe(), "cpu", FrameReader())


def test_a_shard_tells_what_the_device_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_sources: object, **_options: object) -> None:
        raise RuntimeError("Failed to get image info: 4")

    recipe = Recipe(size=32, decoder=NVJPEG_DECODER)
    params = {"recipe": recipe.to_dict(), "subject": "s"}
    shard = device_preparer.load(params, "cpu")
    blobs = [encoded(picture(60, 90)), encoded(picture(60, 90), "PNG"), b""]
    rows = pa.table(
        {
            "image_id": ["a", "b", "c"],
            "uri": ["a.jpg", "b.png", "c.jpg"],
            "frame": [0, 0, 0],
            "etag": ["1", "2", "3"],
        }
    )
    plain = shard(rows, blobs)
    assert (plain.done, plain.rejected) == (2, 1)
    assert plain.tables["prepared"]["recipe"].to_pylist() == [recipe.hash] * 2
    assert "JPEG files nvJPEG refused" not in plain.facts
    monkeypatch.setattr(device_steps, "decode_jpeg", refuse)
    for _ in range(2):  # each shard tells its own
        result = shard(rows, blobs)
        assert result.facts["JPEG files nvJPEG refused"] == 1
        assert result.tables["prepared"].equals(plain.tables["prepared"])


def _some(folder: Path, count: int) -> list[bytes]:
    files = sorted(file for file in folder.rglob("*") if file.suffix in {".jpg", ".jpeg"})
    assert len(files) >= count
    return [file.read_bytes() for file in files[:: len(files) // count][:count]]


REAL = [
    ("cxr-kermany", {"size": 224}),
    ("cxr-kermany", {"size": 160, "channels": 3}),
    ("cxr-kermany", {"size": 320, "resize": "stretch"}),
    ("ct-iqothnccd", {"size": 224}),
    ("ct-iqothnccd", {"size": 224, "window": (110.0, 120.0)}),
]


@pytest.mark.parametrize(("data_set", "recipe"), REAL)
def test_real_images_are_prepared_as_on_the_cpu(
    shared_data: Path, data_set: str, recipe: dict[str, object]
) -> None:
    """Everything but nvJPEG: torchvision's libjpeg-turbo, and the steps on tensors."""
    blobs = _some(shared_data / data_set, 24)
    preparer = on_device(**recipe)
    found = preparer.prepare_all(blobs, [0] * len(blobs))
    assert preparer.refused == 0
    levels = [apart(one, on_cpu(blob, **recipe)) for blob, one in zip(blobs, found, strict=True)]
    assert max(one.max() for one in levels) <= 1
    assert np.mean([one.mean() for one in levels]) <= 0.2


@pytest.mark.gpu
@NEEDS_CUDA
@pytest.mark.parametrize(("data_set", "recipe"), REAL)
def test_nvjpeg_is_within_a_few_levels_of_the_cpu_path(
    shared_data: Path, data_set: str, recipe: dict[str, object]
) -> None:
    blobs = _some(shared_data / data_set, 24)
    preparer = on_device("cuda", **recipe)
    found = preparer.prepare_all(blobs, [0] * len(blobs))
    assert preparer.refused == 0
    levels = [apart(one, on_cpu(blob, **recipe)) for blob, one in zip(blobs, found, strict=True)]
    assert np.mean([one.mean() for one in levels]) <= 1


@pytest.mark.gpu
@NEEDS_CUDA
def test_nvjpeg_turns_and_rejects_as_the_cpu_path_does() -> None:
    blobs = [make() for make in BLOBS.values()]
    blobs.insert(3, blobs[0][:-200])
    found = on_device("cuda", size=96).prepare_all(blobs, [0] * len(blobs))
    reject = found.pop(3)
    assert isinstance(reject, RejectedImage)
    blobs.pop(3)
    for name, blob, one in zip(BLOBS, blobs, found, strict=True):
        assert apart(one, on_cpu(blob, size=96)).mean() <= 1, name


@pytest.mark.gpu
@NEEDS_CUDA
@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_the_steps_after_decoding_are_the_same_to_the_bit_on_a_gpu(resize: str) -> None:
    recipe = Recipe(size=224, resize=resize)
    noise = np.random.default_rng(0).integers(0, 256, (3, 3, 517, 388), np.uint8)
    images = torch.from_numpy(noise)
    on_gpu = device_steps.fitted(recipe, images.cuda())
    assert torch.equal(on_gpu.cpu(), device_steps.fitted(recipe, images))
