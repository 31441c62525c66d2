"""From receipts to visible rows: reconcile, check the files, commit table by table, `runs` last."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from cluster.lake.commit import COMMIT_ORDER, commit_files, commit_state, states_written
from cluster.lake.files import DataFile, write_rows
from cluster.lake.layout import open_prefix, staged_prefix
from cluster.lake.leases import Lease
from cluster.lake.runs import FINISH, LakeRun, Receipt
from cluster.storage import Storage
from schemas.errors import CountsMismatch, RunError
from schemas.plan import Counts, Plan
from schemas.protocols import Report
from schemas.reasons import RunState
from schemas.tables import rows_of

CODE_VERSION = version("rayward")


def commit_run(
    run: LakeRun, lease: Lease, *, state: RunState, seconds: Mapping[str, float]
) -> Report:
    """Make a finished run's rows part of the lake, visible once `runs` names it.

    Every step may be repeated after a crash: a table that has the run is passed over.

    Raises:
        CountsMismatch: if the receipts do not account for every input.
        RunError: if a shard has no receipt or a file is missing or cut short.
        LeaseLost: if another driver took the run over.
    """
    receipts = run.done()
    counts = reconcile(run.plan, receipts)
    facts = {**run.plan.facts, **add_up([one.facts for one in receipts])}
    files: dict[str, list[DataFile]] = {}
    for receipt in receipts:
        for table, written in receipt.files.items():
            files.setdefault(table, []).extend(written)
    check_files(run.storage, [one for some in files.values() for one in some])
    lease.check()
    planned = run.header["key_versions"]
    for table in COMMIT_ORDER:
        if files.get(table):
            commit_files(
                run.storage, table, files[table], run_id=run.id, key=run.plan.key, planned=planned
            )
    row = _row_of(run, state, counts=counts, facts=facts, seconds=seconds)
    named = write_rows(run.storage, "runs", row, run_id=run.id, shard="run")
    commit_files(run.storage, "runs", named, run_id=run.id, key=run.plan.key, planned=planned)
    close(run)
    return Report(
        kind=run.plan.kind,
        name=run.plan.name,
        status=state.value,
        run_id=run.id,
        counts=counts,
        unit=run.plan.unit,
        seconds=seconds,
        facts=facts,
    )


def abandon(run: LakeRun) -> None:
    """Record that nobody will go on with a run: another spec took its key over."""
    if states_written(run.storage, run.id) == 0:
        record_state(run, RunState.ABANDONED, expected=0)
    close(run)


def record_state(
    run: LakeRun, state: RunState, *, expected: int, run_id: str = "", counts: Counts | None = None
) -> None:
    """Add a row about a run to `runs`, or about ``run_id``, which took its place.

    ``expected`` is how many rows `runs` has about it.
    """
    named = run_id or run.id
    row = _row_of(run, state, counts=counts or run.plan.counts, facts={}, seconds={})
    files = write_rows(run.storage, "runs", row, run_id=named, shard=state.value)
    commit_state(run.storage, files, run_id=named, expected=expected)


def close(run: LakeRun) -> None:
    """Take the mark away that the run is open, and what only its finishing step had to see."""
    for entry in list(run.storage.list(staged_prefix(run.id))):
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


def check_files(storage: Storage, files: Sequence[DataFile]) -> None:
    """Make sure that every file is there in full.

    Raises:
        RunError: if one is not; names it.
    """

    def is_whole(file: DataFile) -> bool:
        found = storage.head(file.path)
        return found is not None and found.bytes == file.size

    with ThreadPoolExecutor(16) as heads:
        for file, whole in zip(files, heads.map(is_whole, files), strict=True):
            if not whole:
                raise RunError(
                    "A file of the run is missing or cut short",
                    where=file.path,
                    remedy=f"delete _runs/{file.path.rpartition('/')[2][:20]}… and run again",
                )


def add_up(parts: Sequence[Mapping[str, int | float]]) -> dict[str, int | float]:
    """Add figures up by label."""
    total: dict[str, int | float] = {}
    for part in parts:
        for label, figure in part.items():
            total[label] = total.get(label, 0) + figure
    return total


def _row_of(
    run: LakeRun,
    state: RunState,
    *,
    counts: Counts,
    facts: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> pa.Table:
    plan, header = run.plan, run.header
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
                "facts": json.dumps(facts),
                "seconds": json.dumps({stage: round(s, 3) for stage, s in seconds.items()}),
                "cost": json.dumps(header.get("cost", {})),
                "state": state.value,
                # The store's clock orders the states of a run, whichever host decides.
                "recorded_at": run.storage.now(),
            }
        ],
    )
