"""Following a submission to its end, which the lake tells."""

import asyncio
import time
from collections.abc import Callable

from cluster.lake.store import LakeStore
from cluster.submission.client import Cluster
from cluster.submission.naming import parse_id
from cluster.submission.record import Outcome, driver_of, outcome_of
from schemas.errors import RaywardError

_RECONNECTIONS = 12
"""Times in a row that the cluster may be out of reach: about a minute."""
_PAUSE_S = 5.0


def follow(cluster: Cluster, submission_id: str, write: Callable[[str], object]) -> bool:
    """Write what a job logs, until Ray holds it for ended; says whether Ray knows it still.

    A connection that ends early is made again, and goes on where it ended.
    """
    written, failures = 0, 0
    while True:
        before = written
        written = asyncio.run(_tail(cluster, submission_id, write, written))
        failures = 0 if written > before else failures + 1
        try:
            job = cluster.job(submission_id)
        except RaywardError:
            if failures > _RECONNECTIONS:
                raise
        else:
            if job is None:
                return False
            if job.is_over:
                return True
        time.sleep(_PAUSE_S if failures else 0)


async def _tail(
    cluster: Cluster, submission_id: str, write: Callable[[str], object], written: int
) -> int:
    """Write what comes after the first ``written`` characters; returns how many there are now."""
    seen = 0
    try:
        async for chunk in cluster.tail(submission_id):
            fresh = chunk[max(written - seen, 0) :]
            seen += len(chunk)
            if fresh:
                write(fresh)
                written = seen
    except Exception:  # noqa: BLE001 - whatever ended it, the job's status says how to go on
        return written
    return written


def await_outcome(
    store: LakeStore, submission_id: str, pause_s: float = _PAUSE_S
) -> Outcome | None:
    """How a submission ended; waits while its driver lives, whatever Ray says of it.

    None if the driver is gone and left the end uncertain: submitted again it goes on.
    """
    submission = parse_id(submission_id)
    while True:
        # In this order: a driver that ends between the two has left its record.
        alive = submission is not None and driver_of(store.storage, submission) is not None
        outcome = outcome_of(store, submission_id)
        if outcome or not alive:
            return outcome
        time.sleep(pause_s)
