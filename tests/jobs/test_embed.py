"""Planning vectors, and writing each of them once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.lake.store import LakeStore
from jobs import embed
from jobs.bundles import model_row
from schemas.errors import BundleError, RejectedImage, SplitError
from schemas.plan import Blob, ShardResult
from schemas.reasons import RejectReason
from schemas.rejects import reject_row
from schemas.specs.embed import EmbedSpec
from schemas.tables import rows_of
from tests.jobs.seeding import (
    DATASET,
    SPLIT,
    InlinePool,
    bundle_config,
    image,
    image_id,
    open_lake,
    place,
    seed,
)

MODEL_ID = "00112233aabbccdd"


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    lake = open_lake(tmp_path)
    seed(lake, {"models": [model_row(bundle_config("lungs"), 1, nightly=False)]})
    return lake


def _embed(**changes: Any) -> EmbedSpec:
    return EmbedSpec.model_validate({"dataset": DATASET, "model": "lungs"} | changes)


def _vector(number: int, model_id: str = MODEL_ID) -> dict[str, Any]:
    return {"image_id": image_id(number), "model_id": model_id, "vector": [float(number), 1.0]}


def _planned(store: LakeStore, **changes: Any) -> list[int]:
    ids = embed.plan(_embed(**changes), store).inputs["image_id"].to_pylist()
    return [int(one, 16) for one in ids]


def test_kept_images_without_a_vector_of_this_model_are_planned(store: LakeStore) -> None:
    seed(store, {"embeddings": [_vector(n) for n in range(3)] + [_vector(20, "another")]})
    plan = embed.plan(_embed(batch_size=7, execution={"shard_images": 10}), store)
    assert [int(one, 16) for one in plan.inputs["image_id"].to_pylist()] == [
        n for n in range(3, 40) if n != 5
    ]
    assert plan.counts.up_to_date == 3
    assert plan.bounds == (0, 10, 20, 30, 36)
    assert plan.params["bundle"].endswith("models/lungs/1")
    assert (plan.params["model_id"], plan.params["batch"]) == (MODEL_ID, 7)
    assert plan.params["device"] == "cpu"
    assert 5 in _planned(store, images="all")


def test_only_the_parts_of_a_split_are_planned_where_one_is_named(store: LakeStore) -> None:
    assert _planned(store, split=SPLIT, parts=["val", "test"]) == list(range(24, 40))
    seed(store, {"splits": [place(30, "train"), place(2, "test"), place(50, "test")]})
    moved = [2, *(n for n in range(24, 40) if n != 30)]
    assert _planned(store, split=SPLIT, parts=["val", "test"]) == moved
    seed(store, {"embeddings": [_vector(n) for n in range(24, 32)]})
    plan = embed.plan(_embed(split=SPLIT, parts=["val", "test"]), store)
    assert (plan.inputs.num_rows, plan.counts.up_to_date) == (9, 7)


def test_a_split_without_images_is_refused(store: LakeStore) -> None:
    with pytest.raises(SplitError, match=r"no images.*split other.*none in train, val, test"):
        embed.plan(_embed(split="other"), store)


def test_what_is_wanted_enters_the_fingerprint_and_speed_does_not(store: LakeStore) -> None:
    one = embed.plan(_embed(), store)
    fast = _embed(batch_size=1, name="again", execution={"gpus_per_worker": 1}, use_prepared=False)
    other = embed.plan(fast, store)
    assert one.fingerprint == other.fingerprint
    assert other.params["device"] == "cuda"
    parts = embed.plan(_embed(split=SPLIT, parts=["val"]), store)
    assert parts.fingerprint != one.fingerprint
    assert parts.key == one.key == ("embed", MODEL_ID)
    named = embed.plan(_embed(model="lungs@1"), store)
    assert named.fingerprint == one.fingerprint


def test_a_reject_stands_until_its_bytes_change_or_it_is_retried(store: LakeStore) -> None:
    reject = {"stage": "embed", "subject": MODEL_ID, "reason": "corrupt"}
    seed(
        store,
        {
            "rejects": [
                {**reject, "image_id": image_id(8), "etag": "e8"},
                {**reject, "image_id": image_id(9), "etag": "older"},
                {**reject, "image_id": image_id(10), "etag": "e10", "stage": "score"},
            ]
        },
    )
    planned = _planned(store)
    assert 8 not in planned
    assert {9, 10} <= set(planned)
    assert 8 in _planned(store, retry_rejects=True)


def test_unknown_bundle_is_named_with_known_ones(store: LakeStore) -> None:
    with pytest.raises(BundleError, match=r"got livers.*lungs"):
        embed.plan(_embed(model="livers"), store)


def _work(rows: pa.Table, _blobs: Sequence[Blob]) -> ShardResult:
    """A vector of every image but the thirteenth, which is rejected."""
    ids = rows["image_id"].to_pylist()
    good = [one for one in ids if int(one, 16) != 12]
    bad = [one for one in rows.to_pylist() if int(one["image_id"], 16) == 12]
    why = RejectedImage(RejectReason.CORRUPT)
    rejects = [reject_row(one, why, stage="embed", subject=MODEL_ID) for one in bad]
    vectors = [_vector(int(one, 16)) for one in good]
    tables = {"embeddings": rows_of("embeddings", vectors), "rejects": rows_of("rejects", rejects)}
    return ShardResult(tables, done=len(good), rejected=len(bad))


def test_a_run_writes_each_vector_once_and_the_next_only_what_is_new(store: LakeStore) -> None:
    pool = InlinePool(_work)
    first = embed.run(_embed(split=SPLIT, parts=["train"]), pool, store)
    assert (first.status, first.counts.done, first.counts.rejected) == ("published", 22, 1)
    again = embed.run(_embed(split=SPLIT, parts=["train"]), pool, store)
    assert (again.status, again.counts.up_to_date) == ("up_to_date", 23)
    seed(store, {"images": [image(60, "well")], "quality": [_kept(60)]})
    later = embed.run(_embed(), pool, store)
    assert (later.status, later.counts.done, later.counts.up_to_date) == ("published", 17, 23)
    found = store.query("SELECT image_id, vector FROM embeddings ORDER BY image_id").to_pylist()
    expected = [n for n in [*range(40), 60] if n not in (5, 12)]
    assert [int(row["image_id"], 16) for row in found] == expected
    assert np.array([row["vector"] for row in found])[:, 0].tolist() == expected


def _kept(number: int) -> dict[str, Any]:
    return {"image_id": image_id(number), "dataset": DATASET, "recipe": "r", "kept": True}
