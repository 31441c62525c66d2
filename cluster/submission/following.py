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
"""Times in a row that the cluster may be out of reach: a minute where it refuses, some minutes
where nothing answers."""
_PAUSE_S = 5.0
_FIRST_QUIET_S, _LONGEST_QUIET_S = 30.0, 300.0
"""How long a log may be silent before its connection is given up for a new one. Ray's has no
heartbeat: on a network that died without a word it would wait for ever."""


def follow(cluster: Cluster, submission_id: str, write: Callable[[str], object]) -> bool:
    """Write what a job logs, until Ray holds it for ended; says whether Ray knows it still.

    A connection that ends early is made again, and goes on where it ended.

    Raises:
        RaywardError: if the cluster stays out of reach.
    """
    written, failures, quiet_s, was_over = 0, 0, _FIRST_QUIET_S, False
    while True:
        before = written
        written, whole = asyncio.run(_tail(cluster, submission_id, write, written, quiet_s))
        try:
            job = cluster.job(submission_id)
        except RaywardError:
            failures += 1
            if failures > _RECONNECTIONS:
                raise
        else:
            failures = 0
            if job is None:
                return False
            # Of a job that is over, what a broken connection did not bring is fetched once more.
            if job.is_over and (whole or was_over):
                return True
            was_over = job.is_over
        quiet_s = _FIRST_QUIET_S if written > before else min(2 * quiet_s, _LONGEST_QUIET_S)
        time.sleep(_PAUSE_S if written == before else 0)


async def _tail(
    cluster: Cluster,
    submission_id: str,
    write: Callable[[str], object],
    written: int,
    quiet_s: float,
) -> tuple[int, bool]:
    """Write what comes after the first ``written`` characters, until it is silent for too long.

    Returns how many characters there are now, and whether the connection ended in good order.
    """
    seen = 0
    chunks = cluster.tail(submission_id)
    while True:
        try:
            async with asyncio.timeout(quiet_s):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return written, True
        except Exception:  # noqa: BLE001 - whatever ended it, the job's status says how to go on
            return written, False
        fresh = chunk[max(written - seen, 0) :]
        seen += len(chunk)
        if fresh:
            write(fresh)
            written = seen


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
