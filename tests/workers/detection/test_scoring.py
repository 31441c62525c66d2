"""Detections land where the lesion is in the original, whatever its size and orientation."""

import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from schemas.bundle import BundleConfig, DetectionSettings, Preprocessing
from schemas.errors import BundleError
from workers.detection.boxes import Detections
from workers.detection.maps import to_original
from workers.pixels.recipe import Geometry
from workers.scoring.detecting import make_detector_scorer

SIDE = 128
CELLS = SIDE // 4
SHAPES = ((2, CELLS, CELLS), (2, CELLS, CELLS), (2, CELLS, CELLS))
PARAMS = {"model_id": "m1", "scored_at": "2026-11-21T00:00:00+00:00"}
ORIENTATION = 0x0112


def bundle(resize: str = "letterbox") -> BundleConfig:
    return BundleConfig(
        architecture="resnet18",
        num_classes=2,
        model_id="m1",
        name="lesions",
        family="centernet",
        classes=("cyst", "mass"),
        preprocessing=Preprocessing(
            recipe={"size": SIDE, "channels": 1, "resize": resize}, mean=(0.5,), std=(0.2,)
        ),
        detection=DetectionSettings(score_threshold=0.3, maps=SHAPES),
    )


class Seer:
    """Answers with CenterNet's maps of the brightest rectangle of each image; no weights."""

    batch = 3

    def outputs(self, pixels_NCSS: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.stack([self._maps(pixels_CSS[0]) for pixels_CSS in pixels_NCSS])

    def _maps(self, plane_SS: NDArray[np.uint8]) -> NDArray[np.float32]:
        heat = np.full(SHAPES[0], -12.0, np.float32)
        size, offset = np.zeros(SHAPES[1], np.float32), np.zeros(SHAPES[2], np.float32)
        bright_SS = plane_SS.astype(np.float64) / 255
        if bright_SS.max() > 0.4:
            left, right = self._edges(bright_SS[bright_SS.sum(axis=1).argmax()])
            top, bottom = self._edges(bright_SS[:, bright_SS.sum(axis=0).argmax()])
            centre = np.array([left + right, top + bottom]) / 2 / 4
            cell = np.minimum(centre.astype(int), CELLS - 1)
            heat[1, cell[1], cell[0]] = 3.0
            size[:, cell[1], cell[0]] = np.array([right - left, bottom - top]) / 4
            offset[:, cell[1], cell[0]] = centre - cell
        return np.concatenate([heat.ravel(), size.ravel(), offset.ravel()])

    def _edges(self, profile_S: NDArray[np.float64]) -> tuple[float, float]:
        """Shrinking keeps the sum of a bar and its middle, between pixels too."""
        length = profile_S.sum()
        middle = (profile_S * (np.arange(SIDE) + 0.5)).sum() / length
        return middle - length / 2, middle + length / 2


def coded(
    size: tuple[int, int], box: tuple[int, int, int, int] | None, orientation: int = 1
) -> bytes:
    """A black PNG with a white box, both as seen upright; stored turned as EXIF says."""
    width, height = size
    upright_HW = np.zeros((height, width), np.uint8)
    if box is not None:
        x, y, w, h = box
        upright_HW[y : y + h, x : x + w] = 255
    # What a reader turns by 270 degrees clockwise (8), or by 180 (3), is stored turned back.
    stored_HW = {1: upright_HW, 3: np.rot90(upright_HW, 2), 8: np.rot90(upright_HW, -1)}[
        orientation
    ]
    picture = Image.fromarray(np.ascontiguousarray(stored_HW))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    kept = io.BytesIO()
    picture.save(kept, "PNG", exif=exif)
    return kept.getvalue()


def shard(sizes: list[tuple[int, int]]) -> pa.Table:
    count = len(sizes)
    return pa.table(
        {
            "image_id": [f"i{number}" for number in range(count)],
            "uri": [f"{number}.png" for number in range(count)],
            "etag": ["e"] * count,
            "frame": pa.array([0] * count, pa.int32()),
            "width": pa.array([width for width, _ in sizes], pa.int32()),
            "height": pa.array([height for _, height in sizes], pa.int32()),
        }
    )


@given(
    width=st.integers(33, 400),
    height=st.integers(33, 400),
    place=st.tuples(*[st.floats(0, 1)] * 4),
    orientation=st.sampled_from([1, 3, 8]),
    resize=st.sampled_from(["letterbox", "stretch"]),
)
@settings(max_examples=25)
def test_boxes_land_in_the_original_to_within_a_pixel(
    width: int,
    height: int,
    place: tuple[float, float, float, float],
    orientation: int,
    resize: str,
) -> None:
    """Odd sizes, all of them: a rectangle is found where it was drawn, upright."""
    w = 12 + round(place[0] * (width - 12) * 0.8)
    h = 12 + round(place[1] * (height - 12) * 0.8)
    x, y = round(place[2] * (width - w)), round(place[3] * (height - h))
    scorer = make_detector_scorer(PARAMS, bundle(resize), Seer(), "torch-fp32")  # type: ignore[arg-type]
    blob = coded((width, height), (x, y, w, h), orientation)
    result = scorer(shard([(width, height)]), [blob])
    (found,) = [row for row in result.tables["detections"].to_pylist() if row["score"] > 0.5]
    assert found["category"] == "mass"
    ends = np.array([found["x"], found["y"], found["x"] + found["w"], found["y"] + found["h"]])
    assert np.abs(ends - [x, y, x + w, y + h]).max() <= 1


def test_every_image_has_a_prediction_and_only_found_boxes_have_rows() -> None:
    sizes = [(101, 77), (64, 64), (90, 45), (33, 200), (50, 50)]
    boxes = [(5, 6, 30, 20), None, (10, 10, 20, 20), None, None]
    blobs = [coded(size, box) for size, box in zip(sizes, boxes, strict=True)]
    blobs[4] = b"no picture"
    scorer = make_detector_scorer(PARAMS, bundle(), Seer(), "torch-fp32")  # type: ignore[arg-type]
    result = scorer(shard(sizes), blobs)
    predictions = result.tables["predictions"].to_pylist()
    assert [row["image_id"] for row in predictions] == ["i0", "i1", "i2", "i3"]
    sure = 1 / (1 + np.exp(-3.0))
    assert predictions[0]["scores"] == pytest.approx([0, sure], abs=1e-5)
    assert predictions[0]["score"] == pytest.approx(sure, abs=1e-5)
    assert predictions[1]["scores"] == [0, 0]
    assert predictions[1]["score"] == 0
    assert [row["image_id"] for row in result.tables["detections"].to_pylist()] == ["i0", "i2"]
    assert result.tables["rejects"]["image_id"].to_pylist() == ["i4"]
    assert (result.done, result.rejected) == (4, 1)


def test_boxes_are_cut_at_the_originals_edges() -> None:
    """50 px wide in a square of 100: 25 px of padding left and right."""
    geometry = Geometry(1.0, 1.0, 25.0, 0.0)
    corners_D4 = np.array([[10, 10, 60, 40], [0, 0, 20, 20]], np.float32)
    found = Detections(corners_D4, np.array([0.9, 0.8], np.float32), np.array([0, 0]))
    moved = to_original(found, geometry, (50, 100))
    assert moved.corners_D4.tolist() == [[0, 10, 35, 40]]
    assert to_original(found, geometry, None).corners_D4.tolist()[1] == [-25, 0, -5, 20]


def test_a_bundle_of_another_kind_is_refused() -> None:
    other = bundle().model_copy(update={"family": "classifier"})
    with pytest.raises(BundleError, match="no scorer for this family"):
        make_detector_scorer(PARAMS, other, Seer(), "torch-fp32")  # type: ignore[arg-type]
    bare = bundle().model_copy(update={"detection": None})
    with pytest.raises(BundleError, match="no detection settings"):
        make_detector_scorer(PARAMS, bare, Seer(), "torch-fp32")  # type: ignore[arg-type]


class Unsound(Seer):
    """Its maps of the second image of each batch are no numbers."""

    def outputs(self, pixels_NCSS: NDArray[np.uint8]) -> NDArray[np.float32]:
        maps_NR = super().outputs(pixels_NCSS)
        maps_NR[1, 7] = np.nan
        return maps_NR


def test_maps_that_are_no_numbers_are_rejects() -> None:
    sizes = [(64, 64)] * 3
    boxes = [(5, 6, 30, 20), (5, 6, 30, 20), (10, 10, 20, 20)]
    blobs = [coded(size, box) for size, box in zip(sizes, boxes, strict=True)]
    scorer = make_detector_scorer(PARAMS, bundle(), Unsound(), "torch-fp32")  # type: ignore[arg-type]
    result = scorer(shard(sizes), blobs)
    assert result.tables["detections"]["image_id"].to_pylist() == ["i0", "i2"]
    assert result.tables["predictions"]["image_id"].to_pylist() == ["i0", "i2"]
    (reject,) = result.tables["rejects"].to_pylist()
    assert (reject["image_id"], reject["reason"]) == ("i1", "failed")
    assert (result.done, result.rejected) == (2, 1)
