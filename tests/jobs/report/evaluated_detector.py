"""A lake with the evaluation of a detector whose confusion matrix was printed elsewhere."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from cluster.lake.store import LakeStore
from jobs.bundles import model_row
from schemas.plan import Plan, ShardResult
from schemas.protocols import Report
from schemas.specs.base import JobSpec
from schemas.specs.evaluate_detector import EvaluateDetectorSpec
from schemas.specs.train_detector import DetectorSpec
from schemas.tables import rows_of
from tests.jobs.detecting import MODEL_ID, detector_config

NAMES = ("none", "cyst", "HCC", "hemangioma", "Meta")
FIGURE_4B = (
    (0, 619, 147, 398, 173),
    (208, 2791, 6, 18, 14),
    (271, 12, 871, 103, 114),
    (269, 20, 49, 2558, 66),
    (265, 12, 115, 80, 549),
)
"""A printed confusion matrix; tests/workers/metrics/test_seed_tables.py says what follows."""


def asked(**changes: Any) -> EvaluateDetectorSpec:
    values = {"dataset": "d", "split": "s", "model": "flex", "annotations": "a", "parts": ("test",)}
    return EvaluateDetectorSpec.model_validate(values | {"study": "liver"} | changes)


def publish(store: LakeStore, job: JobSpec, rows: Mapping[str, list[dict[str, Any]]]) -> Report:
    plan = Plan(job.kind, job.name, (job.kind,), {}, {}, pa.table({"image_id": ["one"]}), (0, 1))
    with store.lease(plan.key):
        run = store.begin(plan, job.model_dump(mode="json"))
        tables = {name: rows_of(name, values) for name, values in rows.items()}
        run.record(run.pending()[0], ShardResult(tables, done=1, rejected=0))
        return store.commit(run, {})


def row(metric: str, category: str | None, value: float, **changes: Any) -> dict[str, Any]:
    told = {"study": "liver", "trial": "flex", "part": "test", "subgroup": "", "n": 9}
    figure = {"model_id": MODEL_ID, "metric": metric, "category": category, "value": value}
    return told | figure | changes


def figures() -> list[dict[str, Any]]:
    """Those of a matrix, as an evaluation writes them, with a few others."""
    found = [row("ap", None, 0.344), row("ap50", None, 0.639, ci_low=0.6, ci_high=0.7)]
    found += [row("froc", "1", 0.87), row("threshold", None, 0.3), row("total", None, 8391)]
    for place, name in enumerate(NAMES):
        for column, called in enumerate(NAMES):
            found.append(row("confusion", f"{name}|{called}", FIGURE_4B[place][column]))
        if place:
            found.append(row("total", name, sum(FIGURE_4B[place])))
            found.append(row("over_detections", name, FIGURE_4B[0][place]))
            found.append(row("misses", name, FIGURE_4B[place][0]))
            found.append(row("recall", name, FIGURE_4B[place][place] / sum(FIGURE_4B[place])))
    return found


def trained(version: int, **changes: Any) -> tuple[DetectorSpec, dict[str, list[dict[str, Any]]]]:
    """A training of the detector, and what it publishes."""
    values = {"dataset": "d", "split": "s", "annotations": "a", "model": "flex"}
    config = detector_config("flex", MODEL_ID if version == 1 else "ff" * 8)
    rows = {"models": [model_row(config, version, nightly=False)]}
    return DetectorSpec.model_validate(values | changes), rows


def open_evaluated(root: str) -> LakeStore:
    """A trained detector, evaluated as `asked` and otherwise."""
    lake = LakeStore.open(root, create=True)
    publish(lake, *trained(1, epochs=12, backbone="stepwise"))
    publish(lake, asked(), {"metrics": figures()})
    publish(lake, asked(seed=5), {"metrics": [row("ap", None, 0.1)]})  # another question
    return lake
