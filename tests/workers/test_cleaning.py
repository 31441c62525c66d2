"""Single images and shards of cleaning."""

import io

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from schemas.errors import RejectedImage
from schemas.plan import Blob
from schemas.reasons import RejectReason
from workers import cleaning
from workers.phantoms.frame import Case, Site
from workers.phantoms.ultrasound import draw_ultrasound
from workers.pixels.hash import phash
from workers.pixels.pixels import Pixels

PARAMS = {
    "thresholds": {},
    "subject": "rules-1",
    "dataset": "d",
    "recipe": "rules",
    "max_distance": 4,
}


def encode(view: np.ndarray, kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(view).save(file, kind)
    return file.getvalue()


def noise(seed: int, *shape: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return cv2.resize(coarse, None, fx=6, fy=6, interpolation=cv2.INTER_CUBIC)


def rows(names: list[str], frames: list[int] | None = None) -> pa.Table:
    return pa.table(
        {
            "image_id": [f"id-{name}" for name in names],
            "uri": names,
            "frame": pa.array(frames or [0] * len(names), pa.int32()),
            "etag": [f"etag-{name}" for name in names],
        }
    )


def test_a_shard_stages_facts_and_writes_rejects() -> None:
    blobs: list[Blob] = [
        encode(noise(1, 20, 30)),
        b"",
        RejectedImage(RejectReason.UNREADABLE, "gone"),
        encode(noise(2, 20, 30, 3), "jpeg"),
    ]
    result = cleaning.load(PARAMS)(rows(["a", "b", "c", "d"]), blobs)
    assert (result.done, result.rejected) == (2, 2)
    facts = result.tables["_facts"]
    assert facts["uri"].to_pylist() == ["a", "d"]
    assert facts["phash"][0].as_py() == phash(noise(1, 20, 30))
    assert facts["colour_share"][0].as_py() == 0
    assert facts["colour_share"][1].as_py() > 0.3
    rejects = result.tables["rejects"].to_pylist()
    assert [row["reason"] for row in rejects] == ["empty_file", "unreadable"]
    assert all(row["subject"] == "rules-1" and row["stage"] == "clean" for row in rejects)
    assert rejects[1]["etag"] == "etag-c"


def test_frames_of_a_file_are_inspected_one_by_one() -> None:
    file = io.BytesIO()
    pages = [noise(seed, 12, 12) for seed in range(3)]
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(file, "tiff", save_all=True, append_images=others)
    blob = file.getvalue()
    result = cleaning.load(PARAMS)(rows(["t"] * 3, [0, 1, 2]), [blob] * 3)
    assert result.tables["_facts"]["phash"].to_pylist() == [phash(page) for page in pages]


@pytest.mark.parametrize(
    ("error", "reason"), [(MemoryError, "out_of_memory"), (ZeroDivisionError, "failed")]
)
def test_an_exception_rejects_its_image_alone(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception], reason: str
) -> None:
    real = cleaning.inspect

    def trip(pixels: Pixels) -> cleaning.Findings:
        if pixels.array.shape[0] == 60:
            raise error("patient 12345")
        return real(pixels)

    monkeypatch.setattr(cleaning, "inspect", trip)
    blobs: list[Blob] = [encode(noise(1, 10, 10)), encode(noise(2, 12, 12))]
    result = cleaning.load(PARAMS)(rows(["a", "b"]), blobs)
    assert result.tables["_facts"]["uri"].to_pylist() == ["b"]
    (reject,) = result.tables["rejects"].to_pylist()
    assert reject["reason"] == reason
    assert "12345" not in reject["detail"]


def test_scale_bars_are_detected_and_the_image_is_kept() -> None:
    case = Case("cyst", "liver", Site("a"), 384, scale_bar=True)
    drawn = draw_ultrasound(case, np.random.default_rng(1), np.random.default_rng(2))
    assert drawn.scale_bar is not None
    result = cleaning.load(PARAMS)(rows(["us"]), [encode(drawn.pixels)])
    (quality,) = cleaning.load_finish(PARAMS)(dict(result.tables)).tables["quality"].to_pylist()
    assert quality["bar_colour"] == drawn.scale_bar.colour
    assert 0.0005 < quality["bar_share"] < 0.05
    assert quality["kept"]
    assert quality["reason"] is None


def test_duplicates_go_by_the_order_of_ids_not_of_shards() -> None:
    view = noise(5, 20, 20)
    again = view.copy()
    again[0, 0] ^= 255
    work = cleaning.load(PARAMS)
    late = work(rows(["z"]), [encode(view)]).tables["_facts"]
    early = work(rows(["a"]), [encode(again)]).tables["_facts"]
    finish = cleaning.load_finish(PARAMS)
    quality = finish({"_facts": pa.concat_tables([late, early])}).tables["quality"].to_pylist()
    assert [(row["image_id"], row["duplicate_of"]) for row in quality] == [
        ("id-a", None),
        ("id-z", "id-a"),
    ]


def test_dropped_images_make_no_duplicates() -> None:
    limits = PARAMS | {"thresholds": {"min_side": 100}}
    small, large = noise(5, 10, 10), cv2.resize(noise(5, 10, 10), (240, 240))
    result = cleaning.load(limits)(rows(["a", "b"]), [encode(small), encode(large)])
    quality = cleaning.load_finish(limits)(dict(result.tables)).tables["quality"].to_pylist()
    assert [row["reason"] for row in quality] == ["too_small", None]
    assert quality[1]["duplicate_of"] is None
