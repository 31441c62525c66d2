"""Held runs that nobody was told of: their driver died between the commit and its own end.

A held run is told once, by the driver that committed it. That driver notes in the lake that it did
when it ends; a run without the note is told by the next driver that works through its job.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from cluster.lake.layout import told_path
from cluster.lake.reader import LakeReader
from cluster.storage import Storage
from schemas.plan import Counts
from schemas.protocols import Report
from schemas.reasons import RunState
from schemas.specs.score import NIGHTLY, ScoreSpec

_LAST_ROWS = """
SELECT * FROM runs WHERE list_contains($runs, run_id)
QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY recorded_at DESC) = 1
ORDER BY run_id
"""


def untold_reports(
    spec: ScoreSpec, storage: Storage, told: Collection[str] = ()
) -> Iterator[Report]:
    """Reports, as their drivers would have made them, of a job's held runs that nobody was told of.

    ``told`` are runs that need no note.
    """
    reader = LakeReader(storage)
    held = [one.run_id for one in reader.runs().values() if one.state == RunState.HELD]
    untold = [
        run_id for run_id in held if run_id not in told and storage.head(told_path(run_id)) is None
    ]
    if not untold:
        return
    for row in reader.query(_LAST_ROWS, {"runs": untold}).to_pylist():
        facts = json.loads(row["facts"] or "{}")
        if row["kind"] == spec.kind and _is_of(spec, json.loads(row["spec"]), facts):
            yield _report(spec, row, facts)


def note_told(storage: Storage, reports: Iterable[Report]) -> None:
    """Note of held runs that people were told."""
    for report in reports:
        if report.status == "held" and report.run_id is not None:
            storage.put(told_path(report.run_id), b"")


def _is_of(spec: ScoreSpec, ran: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether a run, by the job it came from, is of this job's data set and model."""
    model = str(facts.get("model", ""))
    ours = spec.model == NIGHTLY or spec.model in (model, model.rpartition("@")[0])
    return ours and ran.get("dataset") == spec.dataset


def _report(spec: ScoreSpec, row: Mapping[str, Any], facts: Mapping[str, Any]) -> Report:
    counts = json.loads(row["counts"])
    counts.pop("input")
    return Report(
        kind=spec.kind,
        name=spec.name,
        status=RunState.HELD.value,
        run_id=row["run_id"],
        counts=Counts(**counts),
        seconds=json.loads(row["seconds"] or "{}"),
        facts=facts,
        cost=json.loads(row["cost"] or "{}"),
    )
