"""From receipts to visible rows: reconcile, check the files, commit table by table, `runs` last."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Any, Protocol

import pyarrow as pa

from cluster.lake.commit import (
    COMMIT_ORDER,
    commit_files,
    commit_state,
    has_run,
    is_outdated,
    states_written,
)
from cluster.lake.files import DataFile, write_rows
from cluster.lake.layout import open_prefix, receipt_path, staged_prefix, train_prefix
from cluster.lake.leases import Lease
from cluster.lake.reader import LakeReader
from cluster.lake.runs import FINISH, LakeRun, Receipt
from cluster.lake.snapshot import RunRow
from cluster.storage import Storage
from schemas.errors import CommitConflict, CountsMismatch, LeaseLost, RunError
from schemas.plan import Counts, Plan
from schemas.protocols import Report
from schemas.reasons import RunState
from schemas.tables import rows_of

CODE_VERSION = version("rayward")
_FIGURES = ("facts", "seconds", "cost")


class Recorded(Protocol):
    """What a row of `runs` is made of."""

    @property
    def storage(self) -> Storage:
        """The lake's store."""

    @property
    def id(self) -> str:
        """The run's name."""

    @property
    def plan(self) -> Plan:
        """What the run was to compute."""

    @property
    def header(self) -> Mapping[str, Any]:
        """What was noted beside the plan."""


def commit_run(
    run: LakeRun,
    lease: Lease,
    *,
    state: RunState,
    seconds: Mapping[str, float],
    facts: Mapping[str, Any] | None = None,
) -> Report:
    """Make a finished run's rows part of the lake, visible once `runs` names it as published.

    ``facts`` are findings beside those of planning and of the shards.

    Every step may be repeated after a crash: a table that has the run is passed over.

    Raises:
        CountsMismatch: if the receipts do not account for every input.
        RunError: if a shard has no receipt or a file is missing or cut short.
        CommitConflict: if another run of the key committed since planning.
        LeaseLost: if another driver took the run over.
    """
    receipts = run.done()
    counts = reconcile(run.plan, receipts)
    told = {**run.plan.facts, **add_up([one.facts for one in receipts]), **(facts or {})}
    cost = cost_of(receipts, counts)
    lease.check()
    check_files(run, receipts)
    _commit_tables(run, receipts)
    row = _row_of(
        run,
        state,
        counts=counts,
        figures={"facts": told, "seconds": _rounded(seconds), "cost": cost},
    )
    named = write_rows(run.storage, "runs", row, run_id=run.id, shard="run")
    lease.check()
    if not _commit(run, "runs", named):
        _check_taken_as(run, state)
    close(run)
    return Report(
        kind=run.plan.kind,
        name=run.plan.name,
        status=state.value,
        run_id=run.id,
        counts=counts,
        unit=run.plan.unit,
        seconds=seconds,
        facts=told,
        cost=cost,
    )


def _commit_tables(run: LakeRun, receipts: Sequence[Receipt]) -> None:
    files: dict[str, list[DataFile]] = {}
    for receipt in receipts:
        for table, written in receipt.files.items():
            files.setdefault(table, []).extend(written)
    for table in COMMIT_ORDER:
        if files.get(table):
            _commit(run, table, files[table])


def _commit(run: LakeRun, table: str, files: Sequence[DataFile]) -> bool:
    """Commit to one table; a run whose plan proves outdated is abandoned, as it can't go on."""
    storage, key, planned = run.storage, run.plan.key, run.header["key_versions"]
    try:
        return commit_files(storage, table, files, run_id=run.id, key=key, planned=planned)
    except CommitConflict:
        if is_outdated(storage, table, run_id=run.id, key=key, planned=planned):
            abandon(run)
        raise


def _check_taken_as(run: LakeRun, state: RunState) -> None:
    """Make sure that a run `runs` had already stands there as this driver was to record it.

    Raises:
        LeaseLost: if another driver recorded something else, as that the run is abandoned.
    """
    last = last_state(run.storage, run.id)
    if last is None or last.state not in (state, RunState.PUBLISHED):
        raise LeaseLost(
            "Another driver took this work over and decided about the run",
            where=run.id,
            got=last.state if last else "no state",
            remedy="nothing is lost: run the job again to see what is left",
        )


def last_state(storage: Storage, run_id: str) -> RunRow | None:
    """Where a run stands, or nothing if `runs` does not name it."""
    return LakeReader(storage).runs().get(run_id)


def abandon(run: LakeRun) -> None:
    """Record that nobody will go on with a run: another spec or run took its key over."""
    if states_written(run.storage, run.id) == 0:
        record_state(run, RunState.ABANDONED, expected=0)
    close(run)


def record_state(
    run: Recorded,
    state: RunState,
    *,
    expected: int,
    counts: Counts | None = None,
    figures: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Add a row about a run to `runs`.

    ``expected`` is how many rows `runs` has about it; ``figures`` are its facts, seconds and cost.
    """
    # S3 tells whole seconds, and a tie of two states would leave open which one stands.
    last = last_state(run.storage, run.id) if expected else None
    row = _row_of(
        run,
        state,
        counts=counts or run.plan.counts,
        figures=figures or {},
        not_before=last.recorded_at + timedelta(microseconds=1) if last else None,
    )
    files = write_rows(run.storage, "runs", row, run_id=run.id, shard=state.value)
    commit_state(run.storage, files, run_id=run.id, expected=expected)


def close(run: LakeRun) -> None:
    """Take the mark away that the run is open, and what only a run on its way needs.

    That is what its finishing step had to see, and the checkpoints of a training. Called once
    `runs` names the run.
    """
    for prefix in (staged_prefix(run.id), train_prefix(run.id)):
        for entry in list(run.storage.list(prefix)):
            run.storage.delete(entry.path)
    run.storage.delete(f"{open_prefix(run.plan.key)}/{run.id}")


def reconcile(plan: Plan, receipts: Sequence[Receipt]) -> Counts:
    """Add the outcomes up and compare them with the inputs.

    Raises:
        CountsMismatch: if they differ.
    """
    total = sum((one.counts for one in receipts if one.shard != FINISH), Counts())
    if total.input != plan.inputs.num_rows:
        raise CountsMismatch(
            "The outcomes do not add up to the inputs",
            where=plan.name,
            got=f"{total.input} outcomes of {plan.inputs.num_rows} inputs",
            remedy="this is a defect of the kind of job; please report it",
        )
    return plan.counts + total


def check_files(run: LakeRun, receipts: Sequence[Receipt]) -> None:
    """Make sure that every file is there in full.

    A shard with a file that is not loses its receipt, so that the next driver computes it anew. A
    run some of whose rows are in a table already is abandoned: a table takes a run's files once.

    Raises:
        RunError: if a file is missing or cut short; names it.
    """
    files = [(one.shard, file) for one in receipts for some in one.files.values() for file in some]

    def is_whole(of_shard: tuple[str, DataFile]) -> bool:
        file = of_shard[1]
        found = run.storage.head(file.path)
        return found is not None and found.bytes == file.size

    with ThreadPoolExecutor(16) as heads:
        whole = heads.map(is_whole, files)
        broken = [one for one, is_there in zip(files, whole, strict=True) if not is_there]
    if not broken:
        return
    if any(has_run(run.storage, table, run.id) for table in COMMIT_ORDER):
        abandon(run)
        remedy = "run the job again: it plans anew"
    else:
        for shard in {shard for shard, _ in broken}:
            run.storage.delete(receipt_path(run.id, shard))
        remedy = "run the job again: the shard is computed anew"
    raise RunError(
        "A file of the run is missing or cut short", where=broken[0][1].path, remedy=remedy
    )


def add_up(parts: Sequence[Mapping[str, int | float]]) -> dict[str, int | float]:
    """Add figures up by label."""
    total: dict[str, int | float] = {}
    for part in parts:
        for label, figure in part.items():
            total[label] = total.get(label, 0) + figure
    return total


def cost_of(receipts: Sequence[Receipt], counts: Counts) -> dict[str, float]:
    """Seconds of processors, and those a thousand inputs; nothing where nobody measured."""
    measured = [one.cost for one in receipts if one.cost is not None]
    if not measured:
        return {}
    cost = {
        "cpu_s": sum(one.cpu_s for one in measured),
        "gpu_s": sum(one.gpu_s for one in measured),
    }
    worked = counts.done + counts.rejected
    if worked:
        cost |= {f"{name}_per_thousand": 1000 * one / worked for name, one in cost.items()}
    return _rounded(cost)


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {stage: round(figure, 3) for stage, figure in seconds.items()}


def _row_of(
    run: Recorded,
    state: RunState,
    *,
    counts: Counts,
    figures: Mapping[str, Mapping[str, Any]],
    not_before: datetime | None = None,
) -> pa.Table:
    """A row of `runs`; ``figures`` are its facts, seconds and cost."""
    plan, header = run.plan, run.header
    # The store's clock orders the states of a run, whichever host decides.
    now = run.storage.now()
    return rows_of(
        "runs",
        [
            {
                "kind": plan.kind,
                "name": plan.name,
                "key": "/".join(plan.key),
                "spec": json.dumps(header["spec"]),
                "fingerprint": plan.fingerprint,
                "code_version": CODE_VERSION,
                "inputs": json.dumps(header["table_versions"]),
                "counts": json.dumps(counts.to_dict()),
                **{name: json.dumps(figures.get(name, {})) for name in _FIGURES},
                "state": state.value,
                "recorded_at": max(now, not_before) if not_before else now,
            }
        ],
    )
