"""A toy kind of job and pools without Ray, to drive the lake through its whole life."""

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from cluster.lake.runs import FINISH, LakeRun
from cluster.lake.store import LakeStore
from cluster.storage import open_storage
from jobs.batch import run_batch
from schemas.plan import Counts, Plan, ShardResult, shard_bounds
from schemas.protocols import Report, Run
from schemas.specs.base import Execution
from schemas.specs.score import ScoreSpec
from schemas.tables import rows_of

MODEL = "m1"
SHARD_ROWS = 3


def ids(count: int, first: int = 0) -> list[str]:
    return [f"{number:032x}" for number in range(first, first + count)]


def is_bad(image_id: str) -> bool:
    """Every fifth image is rejected."""
    return int(image_id, 16) % 5 == 4


def score_of(image_id: str) -> float:
    return (int(image_id, 16) * 37 % 101) / 101


def compute(rows: pa.Table) -> ShardResult:
    """Score the good images, reject the bad ones, stage one fact an image."""
    images = rows["image_id"].to_pylist()
    good = [one for one in images if not is_bad(one)]
    bad = [one for one in images if is_bad(one)]
    return ShardResult(
        tables={
            "predictions": rows_of(
                "predictions",
                [
                    {
                        "image_id": one,
                        "model_id": MODEL,
                        "scores": [1 - score_of(one), score_of(one)],
                        "score": max(score_of(one), 1 - score_of(one)),
                        "backend": "toy",
                    }
                    for one in good
                ],
            ),
            "rejects": rows_of(
                "rejects",
                [
                    {"image_id": one, "stage": "score", "subject": MODEL, "reason": "corrupt"}
                    for one in bad
                ],
            ),
            "_facts": pa.table({"image_id": images}),
        },
        done=len(good),
        rejected=len(bad),
        facts={"good": len(good)},
    )


def finish(staged: Mapping[str, pa.Table]) -> ShardResult:
    """One metric over all shards: how many facts they staged."""
    rows = [{"study": "toy", "metric": "facts", "value": float(staged["_facts"].num_rows)}]
    return ShardResult({"metrics": rows_of("metrics", rows)}, done=0, rejected=0)


class InlinePool:
    """Computes shards in this process; ``before`` may interfere before each shard."""

    def __init__(self, before: Callable[[LakeRun, str], None] | None = None) -> None:
        self.before = before

    def run_shards(self, run: Run, execution: Execution) -> None:
        lake_run = LakeRun(run.storage, run.id, resumed=run.resumed)
        while pending := lake_run.pending():
            if self.before:
                self.before(lake_run, pending[0])
            if pending[0] in lake_run.pending():
                lake_run.record(pending[0], compute(lake_run.rows(pending[0])))

    def finish(self, run: Run) -> None:
        lake_run = LakeRun(run.storage, run.id, resumed=run.resumed)
        if not lake_run.is_finished():
            lake_run.record(FINISH, finish({"_facts": lake_run.staged("_facts")}))

    def train(self, run: Run, config: Mapping[str, Any], workers: int) -> Mapping[str, bytes]:
        raise AssertionError("the toy does not train")


SPEC = ScoreSpec(name="toy", dataset="toy", model="toy")
KEY = ("score", "toy", MODEL)


def plan_toy(store: LakeStore, images: list[str]) -> Plan:
    """All images that have neither a prediction nor a standing reject."""
    settled = store.query(
        "SELECT image_id FROM predictions UNION ALL SELECT image_id FROM rejects"
    )["image_id"].to_pylist()
    left = [one for one in images if one not in set(settled)]
    return Plan(
        kind="score",
        name=SPEC.name,
        key=KEY,
        identity=SPEC.identity(),
        params={},
        inputs=pa.table({"image_id": pa.array(left, pa.string())}),
        bounds=shard_bounds([1] * len(left), images=SHARD_ROWS, max_bytes=2**30),
        counts=Counts(up_to_date=len(images) - len(left)),
    )


def run_toy(
    root: str, images: list[str], pool: InlinePool | None = None, spec: ScoreSpec = SPEC
) -> Report:
    store = LakeStore.open(root, create=True)
    return run_batch(
        spec,
        lambda: plan_toy(store, images),
        pool or InlinePool(),
        store,
        key=KEY,
        identity=spec.identity(),
    )


def contents(root: str) -> dict[str, list[dict[str, Any]]]:
    """What readers see, ids and times of runs aside."""
    store = LakeStore(open_storage(root))
    return {
        table: store.query(f"SELECT * EXCLUDE (run_id) FROM {table} ORDER BY ALL").to_pylist()
        for table in ("predictions", "rejects", "metrics")
    }
