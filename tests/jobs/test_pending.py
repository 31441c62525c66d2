"""What is left to do: the same whether the images without a result are few or many."""

from pathlib import Path

import pyarrow as pa
import pytest

from cluster.lake.store import LakeStore
from jobs import pending as module
from jobs.pending import Wanted, find_pending
from schemas.plan import Counts
from tests.cluster.lake.small import SmallLake, image, prediction

DATASET = "d"


def reject(image_id: str, etag: str = "1", **more: str) -> dict[str, str]:
    told = {"stage": "score", "subject": "m", "reason": "decode_failed"}
    return {"image_id": image_id, "uri": "u", "etag": etag, **told, **more}


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """Images a to h: scored a; not kept b; rejected c, d as it was, e for another model."""
    lake = SmallLake(str(tmp_path))
    lake.publish(
        "r1",
        images=[image(name, etag="1", bytes=10, width=64) for name in "abcdefg"]
        + [image("h", dataset="other", etag="1", bytes=10)],
        quality=[{"dataset": DATASET, "image_id": name, "kept": name != "b"} for name in "abcdefg"]
        + [{"dataset": "other", "image_id": "h", "kept": True}],
        predictions=[prediction("a", "m", 0.5), prediction("f", "other", 0.5)],
        rejects=[
            reject("c"),
            reject("d", etag="0"),
            reject("e", subject="other"),
            reject("g", reason="unreadable"),
        ],
    )
    return LakeStore(lake.storage)


def wanted(images: str = "kept", *, retry: bool = False, among: str = "true") -> Wanted:
    return Wanted(
        dataset=DATASET,
        images=images,
        has_result="image_id IN (SELECT image_id FROM predictions WHERE model_id = $model_id)",
        stage="score",
        subjects=("m",),
        retry=retry,
        parameters={"model_id": "m"},
        among=among,
        more=("width", "study_date") if not retry else (),
    )


@pytest.mark.parametrize("few", [2, 16_384])
@pytest.mark.parametrize(
    ("asked", "names", "up_to_date"),
    [
        (wanted(), "defg", 2),
        (wanted("all"), "bdefg", 2),
        (wanted(retry=True), "cdefg", 1),
        (wanted(among="image_id <> 'e'"), "dfg", 2),
        (wanted(among="image_id = 'c'"), "", 1),
        (wanted(among="image_id = 'a'"), "", 1),
        (wanted(among="image_id = 'none'"), "", 0),
    ],
)
def test_images_without_a_result_or_a_standing_reject_are_open(
    store: LakeStore, monkeypatch: pytest.MonkeyPatch, few: int, asked: Wanted, names: str,
    up_to_date: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "_FEW", few)
    found = find_pending(asked, store, ("score", DATASET, "m"))
    assert found.rows["image_id"].to_pylist() == list(names)
    assert found.counts == Counts(up_to_date=up_to_date)
    assert found.rows["bytes"].to_pylist() == [10] * len(names)
    # What follows reads the columns asked for, whether there are rows or not.
    more = {"width": pa.int32(), "study_date": pa.date32()} if asked.more else {}
    types = dict(zip(found.rows.column_names, found.rows.schema.types, strict=True))
    assert types == {
        "image_id": pa.string(), "uri": pa.string(), "frame": pa.int32(), "etag": pa.string(),
        "bytes": pa.int64(), **more,
    }  # fmt: skip
    if asked.more:
        assert found.rows["width"].to_pylist() == [64] * len(names)
