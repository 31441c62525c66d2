"""Commits: rows become part of a table in one transaction, exactly once.

Each transaction carries two application transactions. ``run/R`` says that the run's files are in;
``key/KEY`` counts the runs that wrote under a key and refuses a run whose plan is older than the
newest of them. Delta checks them only against what changed since the handle was opened, so every
commit opens a fresh handle, reads both, and commits on that handle. On S3 a commit whose fate is
unknown is tried again in the same way: what did happen is found, and refuses the second attempt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
)
from deltalake.exceptions import DeltaError, TableNotFoundError

from cluster.lake.files import DataFile
from cluster.lake.layout import key_slug
from cluster.storage import Storage
from schemas.errors import CommitConflict
from schemas.tables import TABLES

_CONFIGURATION = {
    "delta.checkpointInterval": "10",  # opening version 1,500: 10 ms, against 400 without
    "delta.logRetentionDuration": "interval 3650 days",
    "delta.deletedFileRetentionDuration": "interval 30 days",
}
COMMIT_ORDER = (
    "annotations", "detections", "anomalies", "embeddings", "explanations", "leaks",
    "suspects", "rejects",
    "images", "quality", "prepared", "splits", "models", "predictions", "metrics", "profiles",
    "candidates",
)  # fmt: skip
"""Details first, then rejects, then results; `runs` comes last and makes them visible."""
DELTA_ERRORS = (DeltaError, OSError)
"""What deltalake raises when it can't read or write a log; a store's failure is an OSError."""


def open_table(storage: Storage, table: str) -> DeltaTable | None:
    """A fresh handle on a table, or nothing if nobody wrote to it yet."""

    def open_it() -> DeltaTable | None:
        try:
            return DeltaTable(storage.delta_uri(table), storage_options=storage.delta_options)
        except TableNotFoundError:
            return None

    return storage.persist(open_it, DELTA_ERRORS)


def ensure_table(storage: Storage, table: str) -> DeltaTable:
    """A fresh handle on a table, made empty if it was missing."""

    def ensure() -> DeltaTable:
        handle = open_table(storage, table)
        if handle is not None:
            return handle
        try:
            _create_table(storage, table)
        except DELTA_ERRORS:
            if open_table(storage, table) is None:  # not lost to another driver: a real failure
                raise
        return DeltaTable(storage.delta_uri(table), storage_options=storage.delta_options)

    return storage.persist(ensure, DELTA_ERRORS)


def _create_table(storage: Storage, table: str) -> None:
    described = TABLES[table]
    DeltaTable.create(
        storage.delta_uri(table),
        described.schema,
        mode="error",
        partition_by=list(described.partition_by),
        description=described.row,
        configuration=_CONFIGURATION,
        storage_options=storage.delta_options,
    )


@dataclass(frozen=True)
class TableVersions:
    """Where the tables stand for one key."""

    tables: Mapping[str, int]
    """Delta version of every table that exists."""
    key: Mapping[str, int]
    """How many runs of the key each table holds; tables without any are left out."""


def read_versions(storage: Storage, key: tuple[str, ...]) -> TableVersions:
    """Read where every table stands."""
    tables, of_key = {}, {}
    for table in TABLES:
        handle = open_table(storage, table)
        if handle is not None:
            tables[table] = handle.version()
            version = handle.transaction_version(_key_transaction(key))
            if version is not None:
                of_key[table] = version
    return TableVersions(tables, of_key)


def commit_files(
    storage: Storage,
    table: str,
    files: Sequence[DataFile],
    *,
    run_id: str,
    key: tuple[str, ...],
    planned: Mapping[str, int],
) -> bool:
    """Make a run's files part of a table, unless they are already; says whether it did.

    ``planned`` holds how many runs of the key each table had at planning.

    Raises:
        CommitConflict: if another run of the same key committed since then.
    """

    def commit() -> bool:
        handle = ensure_table(storage, table)
        if handle.transaction_version(_run_transaction(run_id)) is not None:
            return False
        found = handle.transaction_version(_key_transaction(key)) or 0
        expected = planned.get(table, 0)
        if found != expected:
            raise CommitConflict(
                "Another run wrote the same work meanwhile",
                where=f"{table}, {'/'.join(key)}",
                got=f"{found} commits instead of {expected}",
                remedy="run the job again: it plans anew",
            )
        transactions = [
            Transaction(_run_transaction(run_id), 1),
            Transaction(_key_transaction(key), expected + 1),
        ]
        _append(handle, table, files, transactions)
        return True

    try:
        return storage.persist(commit, DELTA_ERRORS)
    except DELTA_ERRORS as error:
        # A commit whose answer got lost did happen; only the log knows.
        if not has_run(storage, table, run_id):
            raise CommitConflict(
                "A commit failed", where=table, got=_told(error), remedy="run the job again"
            ) from error
        return False


def has_run(storage: Storage, table: str, run_id: str) -> bool:
    """Whether a run's files are part of a table."""
    handle = open_table(storage, table)
    return handle is not None and handle.transaction_version(_run_transaction(run_id)) is not None


def is_outdated(
    storage: Storage, table: str, *, run_id: str, key: tuple[str, ...], planned: Mapping[str, int]
) -> bool:
    """Whether another run of the key wrote to a table since planning, and this one did not yet."""
    handle = open_table(storage, table)
    if handle is None or handle.transaction_version(_run_transaction(run_id)) is not None:
        return False
    return (handle.transaction_version(_key_transaction(key)) or 0) != planned.get(table, 0)


def commit_state(
    storage: Storage, files: Sequence[DataFile], *, run_id: str, expected: int
) -> None:
    """Add a further row about a run to `runs`; ``expected`` is how many it has.

    Raises:
        CommitConflict: if somebody else decided about the run meanwhile.
    """

    def is_in() -> bool:
        added = pa.table(ensure_table(storage, "runs").get_add_actions(flatten=True))["path"]
        return {one.add_action("runs").path for one in files} <= set(added.to_pylist())

    def commit() -> None:
        handle = ensure_table(storage, "runs")
        found = handle.transaction_version(_run_transaction(run_id)) or 0
        if found == expected + 1 and is_in():
            return  # an earlier attempt, whose answer got lost
        if found != expected:
            raise CommitConflict(
                "Somebody decided about this run meanwhile",
                where=run_id,
                remedy="look at `rayward status`",
            )
        _append(handle, "runs", files, [Transaction(_run_transaction(run_id), expected + 1)])

    try:
        storage.persist(commit, DELTA_ERRORS)
    except DELTA_ERRORS as error:
        if not is_in():  # otherwise only the answer got lost
            raise CommitConflict(
                "A commit failed",
                where="runs",
                got=_told(error),
                remedy="look at `rayward status`",
            ) from error


def states_written(storage: Storage, run_id: str) -> int:
    """How many rows `runs` has about a run."""
    handle = open_table(storage, "runs")
    return (handle.transaction_version(_run_transaction(run_id)) or 0) if handle else 0


def _append(
    handle: DeltaTable, table: str, files: Sequence[DataFile], transactions: list[Transaction]
) -> None:
    handle.create_write_transaction(
        [one.add_action(table) for one in files],
        mode="append",
        schema=handle.schema(),
        partition_by=list(TABLES[table].partition_by),
        commit_properties=CommitProperties(app_transactions=transactions),
        post_commithook_properties=PostCommitHookProperties(
            create_checkpoint=True, cleanup_expired_logs=False
        ),
    )


def _told(error: Exception) -> str:
    """What may be said of an error of deltalake: a store's own words may name a patient's file."""
    return str(error) if isinstance(error, DeltaError) else type(error).__name__


def _run_transaction(run_id: str) -> str:
    return f"run/{run_id}"


def _key_transaction(key: tuple[str, ...]) -> str:
    return f"key/{key_slug(key)}"
