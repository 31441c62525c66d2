"""A lake with images, a split and perhaps a model, and a pool that computes in this process."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.lake.runs import LakeRun
from cluster.lake.store import LakeStore
from schemas.bundle import (
    CONFIG_FILE,
    OUTCOME_FILE,
    BundleConfig,
    OperatingPoint,
    Preprocessing,
)
from schemas.plan import Blob, Plan, ShardFunction, ShardResult
from schemas.protocols import Run
from schemas.specs.base import Execution
from schemas.tables import rows_of

DATASET = "chests"
SPLIT = "chests-split"


def seed(store: LakeStore, tables: Mapping[str, list[dict[str, Any]]]) -> None:
    """Publish rows of any tables by a run of their own."""
    plan = Plan(
        kind="ingest",
        name="seed",
        key=("ingest", "seed"),
        identity={"tables": sorted(tables)},
        params={},
        inputs=pa.table({"image_id": ["one"]}),
        bounds=(0, 1),
    )
    with store.lease(plan.key):
        run = store.begin(plan, {})
        rows = {name: rows_of(name, values) for name, values in tables.items()}
        run.record(run.pending()[0], ShardResult(rows, done=1, rejected=0))
        store.commit(run, {})


def image(number: int, label: str | None, **changes: Any) -> dict[str, Any]:
    """A row of `images`."""
    row = {
        "image_id": image_id(number),
        "dataset": DATASET,
        "uri": f"archive/{number:04d}.png",
        "frame": 0,
        "etag": f"e{number}",
        "bytes": 1000,
        "label": label,
        "patient_id": f"p{number // 2}",
        "state": "present",
    }
    return row | changes


def image_id(number: int) -> str:
    return f"{number:032x}"


def place(number: int, part: str | None, **changes: Any) -> dict[str, Any]:
    """A row of `splits`; neighbours are one group."""
    row = {
        "split_name": SPLIT,
        "dataset": DATASET,
        "image_id": image_id(number),
        "group_id": f"g{number // 2}",
        "part": part,
    }
    return row | changes


def open_lake(folder: Path) -> LakeStore:
    """Forty labelled images: 24 to train on, 8 to validate, 8 to test."""
    store = LakeStore.open(str(folder / "lake"), create=True)
    numbers = range(40)
    labels = ["well" if number % 4 < 2 else "ill" for number in numbers]
    parts = ["train" if number < 24 else "val" if number < 32 else "test" for number in numbers]
    seed(
        store,
        {
            "images": [image(n, label) for n, label in zip(numbers, labels, strict=True)],
            "splits": [place(n, part) for n, part in zip(numbers, parts, strict=True)],
            "quality": [
                {"image_id": image_id(n), "dataset": DATASET, "recipe": "r", "kept": n != 5}
                for n in numbers
            ],
        },
    )
    return store


def bundle_config(name: str, model_id: str = "00112233aabbccdd", **changes: Any) -> BundleConfig:
    values: dict[str, Any] = {
        "architecture": "resnet18",
        "num_classes": 2,
        "model_id": model_id,
        "name": name,
        "family": "classifier",
        "classes": ("ill", "well"),
        "preprocessing": Preprocessing(recipe={"size": 8}, mean=(0.5,), std=(0.2,)),
        "operating_point": OperatingPoint(positive="ill", threshold=0.25, rule="youden"),
    }
    return BundleConfig(**(values | changes))


class InlinePool:
    """Computes shards with one function; training hands out a bundle without a network."""

    def __init__(self, function: ShardFunction | None = None) -> None:
        self.function = function
        self.trained: list[Mapping[str, Any]] = []
        self.rejects: list[dict[str, Any]] = []

    def run_shards(self, run: Run, execution: Execution) -> None:
        assert self.function is not None
        assert isinstance(run, LakeRun)
        for shard in run.pending():
            rows = run.rows(shard)
            blobs: Sequence[Blob] = [b""] * rows.num_rows
            run.record(shard, self.function(rows, blobs))

    def finish(self, run: Run) -> None:
        """No kind here has a finishing step."""

    def train(self, run: Run, config: Mapping[str, Any], workers: int) -> Mapping[str, bytes]:
        self.trained.append(config)
        made = bundle_config(
            config["bundle"]["name"],
            fingerprint=config["bundle"]["fingerprint"],
            data=config["bundle"]["data"],
        )
        outcome = {"rejects": self.rejects, "history": []}
        return {CONFIG_FILE: made.to_json(), OUTCOME_FILE: json.dumps(outcome).encode()}
