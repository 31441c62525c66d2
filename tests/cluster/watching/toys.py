"""A run whose shards take their time, or stand still, on a real Ray."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from cluster.lake.runs import LakeRun
from cluster.lake.store import LakeStore
from cluster.shards import ProbeProcess, ShardProcess
from schemas.plan import Blob, Plan, ShardFunction, ShardResult
from schemas.tables import rows_of
from workers.stages import Stage, during

CLEAN = {"thresholds": {}, "subject": "toy"}


def toy_plan(images: list[str], shards: int, params: Mapping[str, Any]) -> Plan:
    """A plan over so many shards; ``params`` say what a shard does."""
    step = len(images) // shards
    return Plan(
        kind="clean",
        name="toy",
        key=("clean", "toy"),
        identity={},
        params={**CLEAN, **params},
        inputs=pa.table({"image_id": images}),
        bounds=tuple(range(0, len(images) + 1, step)),
    )


def toy_function(params: Mapping[str, Any]) -> ShardFunction:
    """Notes the node, and stands still at the image ``hang``."""

    def compute(rows: pa.Table, blobs: Sequence[Blob]) -> ShardResult:
        images: list[str] = rows["image_id"].to_pylist()
        with during(Stage.DECODE):
            for image, blob in zip(images, blobs, strict=True):
                if image == params.get("hang") and isinstance(blob, bytes):
                    time.sleep(600)
        if "notes" in params:
            _note(Path(params["notes"]), images[0])
        bad = [image for image, blob in zip(images, blobs, strict=True) if blob != b""]
        rejects = [
            {"image_id": image, "stage": "clean", "reason": "crashed_worker"} for image in bad
        ]
        done = len(images) - len(bad)
        return ShardResult({"rejects": rows_of("rejects", rejects)}, done=done, rejected=len(bad))

    return compute


def _note(notes: Path, image: str) -> None:
    """Note the node; after three shards, wait for a second one to have noted something."""
    node = ray.get_runtime_context().get_node_id()
    deadline = time.monotonic() + 240
    while len(seen := nodes_in(notes)) >= 3 and set(seen) == {node}:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    Path(notes, f"{node}-{image}").touch()


def nodes_in(notes: Path) -> list[str]:
    """The node of every shard that was noted."""
    return [path.name.partition("-")[0] for path in notes.iterdir()]


class ToyShards(ShardProcess):
    """Computes what the toy says instead of cleaning."""

    def __init__(
        self, lake: str, run_id: str, kind: str, params: Mapping[str, Any], gpus: float = 0.0
    ) -> None:
        super().__init__(lake, run_id, kind, CLEAN, gpus)
        self._function = toy_function(params)


class ToyProbe(ProbeProcess):
    """The same for a single image."""

    def __init__(self, lake: str, kind: str, params: Mapping[str, Any]) -> None:
        super().__init__(lake, kind, CLEAN)
        self._function = toy_function(params)


def begun(store: LakeStore, plan: Plan) -> LakeRun:
    """A run of a plan; to be called under its lease."""
    return LakeRun(store.storage, store.begin(plan, {}).id, resumed=False)
