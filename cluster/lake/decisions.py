"""What stands of each run, and what a person decides about a held one."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from cluster.lake.commit import commit_files, read_versions, states_written
from cluster.lake.committing import last_state, record_state
from cluster.lake.files import write_rows
from cluster.lake.layout import plan_path
from cluster.lake.leases import hold, holder_of
from cluster.lake.reader import LakeReader
from cluster.lake.runs import FINISH, LakeRun
from cluster.storage import Storage
from schemas.errors import RejectedImage, UsageError
from schemas.plan import Counts, Plan
from schemas.reasons import RejectReason, RunState
from schemas.rejects import reject_row
from schemas.tables import rows_of


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands."""

    run_id: str
    kind: str
    name: str
    state: str
    shards_done: int
    shards: int
    rejected: int
    inputs: int
    holder: str
    """The process at work, for a run that is not finished."""
    model: str = ""
    """The bundle, for a run that scores."""
    deferred: int = 0
    """Images that were left for later slices."""
    progress: float | None = None
    """Share of the data set that the run's model has been through; none where nothing is left."""


def list_runs(storage: Storage, limit: int = 20) -> list[RunStatus]:
    """Runs at work first, then finished ones, newest first."""
    return [*_open_runs(storage), *_finished_runs(storage, limit)][:limit]


def publish(storage: Storage, run_id: str) -> None:
    """Make the rows of a held run visible.

    Raises:
        UsageError: if the run is not held.
    """
    run, _ = _held_run(storage, run_id)
    with hold(storage, run.plan.key):
        run, written = _held_run(storage, run_id)  # somebody may have decided before the lease
        counts, figures = _recorded(storage, run_id)
        record_state(run, RunState.PUBLISHED, expected=written, counts=counts, figures=figures)


def discard(storage: Storage, run_id: str) -> None:
    """Turn the images of a held run into rejects; its rows never become visible.

    Raises:
        UsageError: if the run is not held.
    """
    run, _ = _held_run(storage, run_id)
    with hold(storage, run.plan.key):
        run, written = _held_run(storage, run_id)  # somebody may have decided before the lease
        rows = _rejects_of(run)
        counts = Counts(rejected=rows.num_rows)
        _commit_rejects(_Discarding(run), rows, counts)
        record_state(run, RunState.DISCARDED, expected=written, counts=counts)


class _Discarding:
    """The run that rejects what a held one computed.

    It is a run of its own, or its rows would be as invisible as the held one's; and of another key
    and fingerprint, or it would pass for work of the held one's model and stand in the way of a run
    of that model which is on its way.
    """

    def __init__(self, held: LakeRun) -> None:
        self.storage, self.header = held.storage, held.header
        self.id = f"{held.id}-discarded"
        self.plan: Plan = replace(
            held.plan, kind="discard", key=("discard", held.id), identity={"run": held.id}
        )


def _commit_rejects(run: _Discarding, rows: pa.Table, counts: Counts) -> None:
    storage, key = run.storage, run.plan.key
    files = write_rows(storage, "rejects", rows, run_id=run.id, shard="00000")
    planned = read_versions(storage, key).key
    commit_files(storage, "rejects", files, run_id=run.id, key=key, planned=planned)
    if not states_written(storage, run.id):
        record_state(run, RunState.PUBLISHED, expected=0, counts=counts)


def _recorded(storage: Storage, run_id: str) -> tuple[Counts, dict[str, Any]]:
    """What `runs` says of a held run: its counts, and its facts, seconds and cost."""
    (row,) = (
        LakeReader(storage)
        .query(
            "SELECT counts, facts, seconds, cost FROM runs WHERE run_id = $run_id"
            " ORDER BY recorded_at DESC LIMIT 1",
            {"run_id": run_id},
        )
        .to_pylist()
    )
    figures = {name: json.loads(text or "{}") for name, text in row.items()}
    counts = figures.pop("counts")
    counts.pop("input")
    return Counts(**counts), figures


def _rejects_of(run: LakeRun) -> pa.Table:
    why = RejectedImage(RejectReason.GATE_DISCARDED, f"run {run.id} was discarded")
    return rows_of(
        "rejects",
        [
            reject_row(row, why, stage=run.plan.kind, subject=run.plan.key[-1])
            for row in run.plan.inputs.to_pylist()
        ],
    )


def _held_run(storage: Storage, run_id: str) -> tuple[LakeRun, int]:
    last = last_state(storage, run_id)
    if last is None or last.state != RunState.HELD:
        raise UsageError(
            "The run is not held, so there is nothing to decide",
            where=run_id,
            got=last.state if last else "no such run",
            remedy="`rayward status` lists the runs",
        )
    return LakeRun(storage, run_id, resumed=True), states_written(storage, run_id)


def _open_runs(storage: Storage) -> Iterator[RunStatus]:
    for mark in sorted(storage.list("_open"), key=lambda one: one.path, reverse=True):
        run = LakeRun(storage, mark.path.rpartition("/")[2], resumed=True)
        if states_written(storage, run.id) or storage.head(plan_path(run.id)) is None:
            continue
        receipts = [
            one for one in run.receipts().values() if one.halves is None and one.shard != FINISH
        ]
        holder = holder_of(storage, run.plan.key)
        yield RunStatus(
            run_id=run.id,
            kind=run.plan.kind,
            name=run.plan.name,
            state=RunState.RUNNING.value if holder else "unfinished",
            shards_done=len(receipts),
            shards=max(run.plan.shards, len(receipts)),
            rejected=sum(one.counts.rejected for one in receipts),
            inputs=run.plan.inputs.num_rows,
            holder=str(holder) if holder else "nobody: run the job again to go on",
            model=str(run.plan.facts.get("model", "")),
            deferred=run.plan.counts.deferred,
        )


def _finished_runs(storage: Storage, limit: int) -> Iterator[RunStatus]:
    runs: pa.Table = LakeReader(storage).query(
        "SELECT run_id, any_value(kind) AS kind, any_value(name) AS name, "
        "arg_max(state, recorded_at) AS state, arg_max(counts, recorded_at) AS counts, "
        "any_value(facts ->> '$.model') AS model "
        "FROM runs GROUP BY run_id ORDER BY run_id DESC LIMIT $limit",
        {"limit": limit},
    )
    for row in runs.to_pylist():
        counts = json.loads(row["counts"])
        yield RunStatus(
            run_id=row["run_id"],
            kind=row["kind"],
            name=row["name"],
            state=row["state"],
            shards_done=0,
            shards=0,
            rejected=counts["rejected"],
            inputs=counts["input"],
            holder="",
            model=row["model"] or "",
            deferred=counts["deferred"],
            progress=_progress(counts),
        )


def _progress(counts: Mapping[str, int]) -> float | None:
    left = counts["deferred"] + counts["held"]
    return 1 - left / counts["input"] if counts["deferred"] else None
