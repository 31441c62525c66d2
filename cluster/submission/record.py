"""How a submission ended, as the lake tells it.

Ray's word is not enough: a passing RPC error marks a job FAILED whose driver works on, and a lost
head forgets every job. So the driver leaves a record in the lake of what its jobs reported, and the
table `runs` has the last word on each run that this names. Where there is no record, because the
driver died, the end is uncertain; submitted again, jobs that ended have nothing to do.

::

    _jobs/ID/order.json     what was asked for, and when the driver began; created once
    _jobs/ID/outcome.json   the reports of the jobs and the exit code; created once
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from cluster.lake.leases import Holder, holder_of
from cluster.lake.store import LakeStore
from cluster.runner import exit_code
from cluster.storage import Storage
from cluster.submission.naming import SubmissionId
from cluster.submission.order import Order
from schemas.plan import Counts
from schemas.protocols import Report

_FOLDER = "_jobs"


@dataclass(frozen=True)
class Outcome:
    """How the jobs of a submission ended."""

    code: int
    """The exit code `rayward run` would have ended with."""
    reports: tuple[Report, ...] = ()
    error: str = ""
    """What the command would have said on stderr."""


def submission_key(submission: SubmissionId) -> tuple[str, ...]:
    """What the driver of a submission holds while it lives; attempts of a day share it."""
    return ("submission", submission.base)


def driver_of(storage: Storage, submission: SubmissionId) -> Holder | None:
    """The driver at work on a submission or on another attempt of its day, if one lives."""
    return holder_of(storage, submission_key(submission))


def recorded_ids(storage: Storage, prefix: str = "") -> Iterator[str]:
    """Ids of the submissions the lake knows, those that begin with ``prefix``."""
    paths = (entry.path.split("/") for entry in storage.list(_FOLDER))
    yield from sorted({path[1] for path in paths if path[1].startswith(prefix)})


def record_start(storage: Storage, order: Order) -> None:
    """Note what a driver is about to do."""
    document = {"order": json.loads(order.to_bytes()), "began_at": datetime.now(UTC).isoformat()}
    storage.put_new(_path(order.submission_id, "order"), json.dumps(document).encode())


def record_outcome(storage: Storage, submission_id: str, outcome: Outcome) -> None:
    """Note how it ended; the first word stands."""
    document = {**asdict(outcome), "ended_at": datetime.now(UTC).isoformat()}
    storage.put_new(_path(submission_id, "outcome"), json.dumps(document, default=str).encode())


def recorded_order(storage: Storage, submission_id: str) -> Order | None:
    """What a submission asked for, if its driver began."""
    document = _read(storage, _path(submission_id, "order"))
    return _order(document) if document else None


def outcome_of(store: LakeStore, submission_id: str) -> Outcome | None:
    """How a submission ended; none while that is not certain."""
    begun = _read(store.storage, _path(submission_id, "order"))
    recorded = _read(store.storage, _path(submission_id, "outcome"))
    if begun is None or recorded is None:
        return None
    order = _order(begun)
    reports = tuple(_report(one) for one in recorded["reports"])
    states = _states(store, [one.run_id for one in reports if one.run_id])
    # A run that the table does not name never became visible, whatever its driver believed.
    if any(one.run_id and one.run_id not in states for one in reports):
        return None
    told = tuple(
        replace(one, status=states[one.run_id]) if one.run_id in states else one for one in reports
    )
    if recorded["error"]:
        return Outcome(recorded["code"], told, recorded["error"])
    return Outcome(exit_code(told, order.job_file), told)


def _states(store: LakeStore, run_ids: Sequence[str]) -> dict[str | None, str]:
    if not run_ids:
        return {}
    rows = store.query(
        "SELECT run_id, arg_max(state, recorded_at) AS state FROM runs "
        "WHERE list_contains($ids, run_id) GROUP BY run_id",
        {"ids": list(run_ids)},
    )
    return {row["run_id"]: row["state"] for row in rows.to_pylist()}


def _path(submission_id: str, what: str) -> str:
    return f"{_FOLDER}/{submission_id}/{what}.json"


def _read(storage: Storage, path: str) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = json.loads(storage.get(path))
    except FileNotFoundError:
        return None
    return document


def _order(document: Mapping[str, Any]) -> Order:
    return Order.from_bytes(json.dumps(document["order"]).encode())


def _report(values: Mapping[str, Any]) -> Report:
    return Report(**{**values, "counts": Counts(**values["counts"])})
