"""Shards of preparing: pixels, geometry and rejects."""

import io
import json
from collections.abc import Sequence
from datetime import date
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pydicom
import pytest
from PIL import Image

from schemas.errors import RejectedImage
from schemas.plan import Blob
from schemas.reasons import RejectReason
from workers import preparing
from workers.phantoms.ct import draw_ct
from workers.phantoms.encode import Format, Header, encode
from workers.phantoms.frame import Case, Frame, Site
from workers.phantoms.noise import generator
from workers.phantoms.patients import Patient
from workers.phantoms.ultrasound import draw_ultrasound
from workers.phantoms.xray import draw_xray
from workers.pixels.decode import open_image
from workers.pixels.encoding import decode
from workers.pixels.pixels import Pixels
from workers.pixels.recipe import Geometry, Prepared, apply
from workers.pixels.steps import Recipe

DRAW = {"US": draw_ultrasound, "CT": draw_ct, "CR": draw_xray}
LABELS = {"US": "cyst", "CT": "normal", "CR": "normal"}
VIEWS = {"US": "liver", "CT": "axial", "CR": "PA"}


def drawn(modality: str, size: int = 160, **changes: Any) -> Frame:
    case = Case(LABELS[modality], VIEWS[modality], Site("SITE-01"), size, **changes)
    return DRAW[modality](case, generator(1, 1), generator(2, 1))


def phantom(modality: str, form: Format) -> bytes:
    patient = Patient(1, "ct", "normal", "F", 50, 1, date(2026, 1, 2))
    header = Header(patient, modality, VIEWS[modality], "1")
    return encode(drawn(modality), form, header, np.random.default_rng(0))


def rows(count: int, frames: Sequence[int] | None = None) -> pa.Table:
    return pa.table(
        {
            "image_id": [f"id-{number}" for number in range(count)],
            "uri": [f"uri-{number}" for number in range(count)],
            "frame": pa.array(frames or [0] * count, pa.int32()),
            "etag": [f"etag-{number}" for number in range(count)],
        }
    )


def load(recipe: Recipe) -> Any:
    return preparing.load({"recipe": recipe.to_dict(), "subject": "recipe-1"})


def prepared(recipe: Recipe, blobs: Sequence[Blob], frames: Sequence[int] | None = None) -> Any:
    return load(recipe)(rows(len(blobs), frames), blobs)


def pixels_of(row: dict[str, Any]) -> np.ndarray:
    return decode(row["pixels"], row["height"], row["width"])


def png(view: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(view).save(file, "png")
    return file.getvalue()


FILES = [("US", Format.JPEG), ("CT", Format.PNG), ("CT", Format.DICOM), ("CR", Format.DICOM)]


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(size=64),
        Recipe(size=200, channels=3, resize="stretch"),
        Recipe(size=96, crop_sector=True, window=(-600, 1500)),
    ],
)
def test_rows_are_what_the_recipe_makes_of_the_decoded_files(recipe: Recipe) -> None:
    blobs = [phantom(*one) for one in FILES]
    result = prepared(recipe, blobs)
    assert (result.done, result.rejected) == (4, 0)
    assert result.facts["pixel bytes"] == 4 * recipe.size**2 * recipe.channels
    found = result.tables["prepared"].to_pylist()
    assert [row["image_id"] for row in found] == ["id-0", "id-1", "id-2", "id-3"]
    for row, blob in zip(found, blobs, strict=True):
        array, geometry = apply(recipe, open_image(blob).pixels(0))
        assert row["recipe"] == recipe.hash
        assert (row["height"], row["width"]) == (recipe.size, recipe.size)
        assert np.array_equal(pixels_of(row), array)
        assert Geometry.from_dict(json.loads(row["geometry"])) == geometry


def test_a_16_bit_dicom_file_comes_out_as_pydicom_and_block_means_say() -> None:
    data = phantom("CT", Format.DICOM)
    (row,) = prepared(Recipe(size=80), [data]).tables["prepared"].to_pylist()
    image = pydicom.dcmread(io.BytesIO(data))
    hounsfield = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
    # PS3.3 C.11.2.1.2.1: the linear window.
    share = (hounsfield - (image.WindowCenter - 0.5)) / (image.WindowWidth - 1) + 0.5
    shown = np.rint(np.clip(share, 0, 1) * 255)
    blocks = shown.reshape(80, 2, 80, 2).mean(axis=(1, 3))
    assert np.abs(pixels_of(row) - blocks).max() <= 1
    assert np.ptp(blocks) > 150


def test_real_files_come_out_as_opencv_shrinks_them(shared_data: Any) -> None:
    path = sorted((shared_data / "ct-iqothnccd").rglob("*.jpg"))[0]
    grey = np.asarray(Image.open(path).convert("L"))
    expected = cv2.resize(grey, (128, 128), interpolation=cv2.INTER_AREA)
    (row,) = (
        prepared(Recipe(size=128, resize="stretch"), [path.read_bytes()])
        .tables["prepared"]
        .to_pylist()
    )
    assert np.abs(pixels_of(row).astype(int) - expected).max() <= 2


def test_inputs_without_pixels_are_rejected_and_the_rest_goes_on() -> None:
    good = png(np.full((20, 30), 90, np.uint8))
    gone = RejectedImage(RejectReason.GONE_DURING_RUN, "not there")
    result = prepared(Recipe(size=16), [b"", good, gone, phantom("CR", Format.DICOM)[:900]])
    assert (result.done, result.rejected) == (1, 3)
    assert [row["image_id"] for row in result.tables["prepared"].to_pylist()] == ["id-1"]
    rejects = result.tables["rejects"].to_pylist()
    assert [row["image_id"] for row in rejects] == ["id-0", "id-2", "id-3"]
    assert [row["reason"] for row in rejects][:2] == ["empty_file", "gone_during_run"]
    assert {row["stage"] for row in rejects} == {"prepare"}
    assert {row["subject"] for row in rejects} == {"recipe-1"}
    assert rejects[1]["etag"] == "etag-2"


@pytest.mark.parametrize(
    ("error", "reason"), [(MemoryError, "out_of_memory"), (ZeroDivisionError, "failed")]
)
def test_an_exception_rejects_its_image_alone(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception], reason: str
) -> None:
    real = preparing.prepare

    def trip(recipe: Recipe, pixels: Pixels) -> Prepared:
        if pixels.array.shape[0] == 60:
            raise error("patient 12345")
        return real(recipe, pixels)

    monkeypatch.setattr(preparing, "prepare", trip)
    blobs = [png(np.full((side, 30), 90, np.uint8)) for side in (60, 61)]
    result = prepared(Recipe(size=16), blobs)
    assert result.tables["prepared"]["image_id"].to_pylist() == ["id-1"]
    (reject,) = result.tables["rejects"].to_pylist()
    assert reject["reason"] == reason
    assert "12345" not in reject["detail"]


def test_frames_of_a_file_are_images_of_their_own() -> None:
    file = io.BytesIO()
    first, *others = [Image.fromarray(np.full((16, 16), level, np.uint8)) for level in (10, 20, 30)]
    first.save(file, "tiff", save_all=True, append_images=others)
    blob = file.getvalue()
    found = prepared(Recipe(size=16), [blob] * 3, [2, 0, 1]).tables["prepared"].to_pylist()
    assert [pixels_of(row).mean() for row in found] == [30, 10, 20]


def test_scale_bars_that_were_removed_are_counted() -> None:
    blobs = [png(drawn("US", 384, scale_bar=bar).pixels) for bar in (True, False)]
    cleared = prepared(Recipe(size=384, channels=3, remove_scale_bar=True), blobs)
    assert cleared.facts["scale bars removed"] == 1
    left = prepared(Recipe(size=384, channels=3), blobs)
    assert "scale bars removed" not in left.facts
    with_bar, without = (result.tables["prepared"].to_pylist()[0] for result in (left, cleared))
    assert not np.array_equal(pixels_of(with_bar), pixels_of(without))


def test_a_shard_without_images_writes_empty_tables() -> None:
    result = prepared(Recipe(size=16), [])
    assert {name: table.num_rows for name, table in result.tables.items()} == {
        "prepared": 0,
        "rejects": 0,
    }


def test_whatever_prepares_makes_the_same_rows() -> None:
    recipe = Recipe(size=4)
    array = np.arange(16, dtype=np.uint8).reshape(4, 4)
    asked = []

    def prepare_images(
        blobs: Sequence[Blob], frames: Sequence[int]
    ) -> list[Prepared | RejectedImage]:
        asked.append((list(blobs), list(frames)))
        return [Prepared(array, Geometry(1, 2, 3, 4), 0), RejectedImage(RejectReason.CORRUPT)]

    params = {"recipe": recipe.to_dict(), "subject": "s"}
    result = preparing.shard_function(params, prepare_images)(rows(2, [5, 6]), [b"a", b"b"])
    assert asked == [([b"a", b"b"], [5, 6])]
    (row,) = result.tables["prepared"].to_pylist()
    assert np.array_equal(pixels_of(row), array)
    assert json.loads(row["geometry"]) == {
        "scale_x": 1,
        "scale_y": 2,
        "offset_x": 3,
        "offset_y": 4,
    }
    assert result.tables["rejects"]["image_id"].to_pylist() == ["id-1"]
