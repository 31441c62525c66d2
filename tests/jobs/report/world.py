"""A lake of a study's bundles and evaluations, made by hand."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.lake.store import LakeStore
from schemas.plan import Plan, ShardResult
from schemas.specs.study import StudySpec
from schemas.studies import trials_of
from schemas.tables import rows_of


class World:
    """A lake to which runs are added by hand."""

    def __init__(self, folder: Path) -> None:
        self.store = LakeStore.open(str(folder / "lake"), create=True)

    def add(self, table: str, rows: list[dict[str, Any]]) -> None:
        self.add_run("ingest", {"n": table}, {table: rows})

    def add_run(
        self, kind: str, spec: dict[str, Any], tables: dict[str, list[dict[str, Any]]]
    ) -> None:
        key = (kind, json.dumps(spec, sort_keys=True)[:40])
        plan = Plan(kind, "x", key, {"at": str(tables)}, {}, pa.table({"i": ["1"]}), (0, 1))
        with self.store.lease(key):
            run = self.store.begin(plan, spec)
            filled = {name: rows_of(name, rows) for name, rows in tables.items()}
            run.record(run.pending()[0], ShardResult(filled, done=1, rejected=0))
            self.store.commit(run, {})

    def evaluate(
        self, study: StudySpec, number: int, /, *rows: dict[str, Any], **changes: Any
    ) -> None:
        """An evaluation of one trial; ``changes`` are of what it asked."""
        (job,) = trials_of(study)[number].evaluations
        self.add_run("evaluate", job.model_dump(mode="json") | changes, {"metrics": list(rows)})


def bundle(name: str, version: int, model_id: str, **val: float) -> dict[str, Any]:
    return {
        "model_id": model_id,
        "name": name,
        "version": version,
        "metrics": json.dumps({**val, "note": "text"}),
        "created_at": datetime(2026, 11, 21, tzinfo=UTC) + timedelta(hours=version),
    }


def metric(trial: str, model_id: str, value: float, **more: Any) -> dict[str, Any]:
    row = {"study": "s", "trial": trial, "part": "test", "subgroup": "", "model_id": model_id}
    return row | {"metric": "auc", "value": value, "ci_low": 0.1, "ci_high": 0.9, "n": 5} | more
