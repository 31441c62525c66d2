"""A pool of one computes what the pool on Ray computes, row for row."""

import io
from pathlib import Path
from typing import Any

import pytest

from cluster.inline_pool import InlinePool
from cluster.kinds import KINDS
from cluster.lake.runs import LakeRun
from cluster.lake.store import LakeStore
from cluster.pool import RayPool
from cluster.progress import Progress
from cluster.ray_session import RaySession
from schemas.errors import RunError
from schemas.protocols import Pool
from schemas.specs.clean import CleanSpec
from schemas.specs.ingest import IngestSpec
from schemas.specs.phantoms import PhantomsSpec
from schemas.specs.prepare import PrepareSpec
from schemas.specs.split import SplitSpec
from tests.cluster.lake.toy import KEY, ids, plan_toy

TABLES = ("images", "quality", "splits", "prepared", "rejects")


def jobs(folder: Path) -> list[Any]:
    """Kinds with and without a finishing step, with several shards, and one that needs all rows."""
    shards = {"shard_images": 16}
    return [
        PhantomsSpec(
            target=str(folder / "phantoms"), count=40, size=64, broken_share=0.1, execution=shards
        ),
        IngestSpec(name="us", source=str(folder / "phantoms/images"), execution=shards),
        CleanSpec(dataset="us", execution=shards),
        SplitSpec(name="safe", dataset="us", max_group_share=0.5, folds=3),
        PrepareSpec(dataset="us", preprocess={"size": 32}, execution=shards),
    ]


def run_all(folder: Path, lake: str, pool: Pool) -> dict[str, list[dict[str, Any]]]:
    store = LakeStore.open(lake, create=True)
    made = (folder / "phantoms").exists()
    for job in jobs(folder)[made:]:
        assert KINDS[job.kind].run(job, pool, store).status == "published"
    times = {"images": ", seen_at"}
    return {
        table: store.query(
            f"SELECT * EXCLUDE (run_id{times.get(table, '')}) FROM {table} ORDER BY ALL"
        ).to_pylist()
        for table in TABLES
    }


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(200)
def test_both_pools_make_the_same_rows(tmp_path: Path) -> None:
    inline = run_all(tmp_path, str(tmp_path / "one"), InlinePool(str(tmp_path / "one"), print))
    lake = str(tmp_path / "two")
    with RayPool(lake, RaySession(cpus=2), Progress(io.StringIO())) as pool:
        on_ray = run_all(tmp_path, lake, pool)
    assert inline == on_ray
    assert {table: bool(rows) for table, rows in inline.items()} == dict.fromkeys(TABLES, True)


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    store = LakeStore.open(lake, create=True)
    job = jobs(tmp_path)[0]
    with store.lease(("phantoms", "x")):
        planned = KINDS["phantoms"].plan(job, store)
    with store.lease(planned.key):
        run = store.begin(planned, job.model_dump(mode="json"))
        pool = InlinePool(lake, print)
        pool.run_shards(run, job.execution)
        pool.finish(run)
        assert isinstance(run, LakeRun)
        receipts = run.receipts()
        assert len(receipts) == planned.shards + 1
        pool.run_shards(run, job.execution)
        pool.finish(run)
        assert run.receipts() == receipts


def test_it_trains_alone(tmp_path: Path) -> None:
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    with store.lease(KEY):
        run = store.begin(plan_toy(store, ids(1)), {})
        with pytest.raises(RunError, match="trains alone.*got 2 workers. Set `world_size: 1`"):
            InlinePool(store.root, print).train(run, {}, 2)
