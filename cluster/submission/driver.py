"""Runs the jobs of a submission on the cluster: `python -m cluster.submission.driver`.

Ray starts it in the package, as the job's own process. It works like `rayward run`, and leaves in
the lake what it was asked and how it ended.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TextIO

from cluster.foreign import told
from cluster.lake.leases import LAPSE_S, hold
from cluster.lake.store import LakeStore
from cluster.nights.at_work import AtWork
from cluster.nights.night import Night
from cluster.nights.notifying import messenger
from cluster.nights.watching import watched
from cluster.progress import Progress
from cluster.render import report_text
from cluster.runner import EXIT_FAILED, exit_code, run_jobs, select
from cluster.submission.access import AUTH_MODE
from cluster.submission.naming import SubmissionId, parse_id
from cluster.submission.order import ORDER_FILE, Order
from cluster.submission.record import Outcome, record_outcome, record_start, submission_key
from cluster.watching.logs import configure_logs
from schemas.errors import LeaseHeld, RaywardError
from schemas.masking import masked
from schemas.protocols import Report

_RETRY_S = 5.0
_PATIENCE_S = LAPSE_S + 3 * _RETRY_S
"""How long a later attempt waits for the leases of a driver that died on another machine."""


def drive(order: Order, stream: TextIO, patience_s: float | None = None) -> Outcome:
    """Run the jobs of an order; what is done already is not done again.

    Args:
        order: What to run.
        stream: Where progress and reports go; Ray keeps it as the job's log.
        patience_s: How long to wait for work that another driver holds; when not given, a first
            attempt does not wait, and a later one until a dead driver's leases have lapsed.
    """
    submission = parse_id(order.submission_id) or SubmissionId(order.submission_id, "", 1)
    if patience_s is None:
        patience_s = _PATIENCE_S if submission.attempt > 1 else 0.0
    store = LakeStore.open(order.job_file.lake, create=True)
    deadline_s = time.monotonic() + patience_s
    with _held(store, submission, deadline_s, stream):
        record_start(store.storage, order)
        outcome = _run(order, stream, deadline_s)
        record_outcome(store.storage, order.submission_id, outcome)
    return outcome


@contextmanager
def _held(
    store: LakeStore, submission: SubmissionId, deadline_s: float, stream: TextIO
) -> Iterator[None]:
    """Hold the day's submission, so that others can tell that its driver lives."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(hold(store.storage, submission_key(submission)))
            except LeaseHeld as error:
                _wait(error, deadline_s, stream)
            else:
                break
        yield


def _run(order: Order, stream: TextIO, deadline_s: float) -> Outcome:
    # Of all passes: what one reported, as that it is held, the next one finds up to date.
    reports: list[Report] = []
    while True:
        try:
            _run_once(order, stream, reports.append)
            return Outcome(exit_code(reports, order.job_file), tuple(reports))
        except LeaseHeld as error:
            if time.monotonic() < deadline_s:
                _wait(error, deadline_s, stream)
                continue
            return _failed(error, reports, stream)
        except Exception as error:  # noqa: BLE001 - whatever ends it, the lake has to know
            return _failed(error, reports, stream)


def _run_once(order: Order, stream: TextIO, note: Callable[[Report], object]) -> None:
    job_file = order.job_file
    selected = select(job_file, order.only)
    limits = {spec.name: spec.max_reject_share for spec in selected}
    night = Night.begin(job_file.night, order.night)
    progress = Progress(stream)
    at_work = AtWork(selected[0])
    reports = run_jobs(
        job_file, only=order.only, address=None, progress=progress, night=night, at_work=at_work
    )
    if job_file.notify:
        warn = partial(_say, stream)
        teller = messenger(job_file.notify, night=night.date, lake=job_file.lake, warn=warn)
        reports = watched(reports, at_work, night, teller)
    try:
        for report in reports:
            note(report)
            _say(stream, report_text(report, limits[report.name]))
    finally:
        progress.finish()


def _failed(error: Exception, reports: list[Report], stream: TextIO) -> Outcome:
    text = _told(error, stream)
    code = error.exit_code if isinstance(error, RaywardError) else EXIT_FAILED
    return Outcome(code, tuple(reports), text)


def _told(error: Exception, stream: TextIO) -> str:
    """Say what went wrong; of errors that are not ours only class and place.

    Ray shows the log to everybody who may see the job, and foreign messages may quote paths;
    RAYWARD_TRACEBACK=1 shows them nevertheless.
    """
    foreign = not isinstance(error, RaywardError)
    text = f"error: {told(error) if foreign else masked(str(error))}"
    _say(stream, text)
    if foreign and os.environ.get("RAYWARD_TRACEBACK") == "1":
        traceback.print_exception(error, file=stream)
    return text


def _wait(error: LeaseHeld, deadline_s: float, stream: TextIO) -> None:
    """Wait a moment for a lease.

    Raises:
        LeaseHeld: if patience has ended.
    """
    if time.monotonic() >= deadline_s:
        raise error
    _say(stream, f"waiting: {error}")
    time.sleep(_RETRY_S)


def _say(stream: TextIO, text: str) -> None:
    print(text, file=stream, flush=True)


def _leave(number: int, _frame: object) -> None:
    """Leave in good order, so that leases are given up and the next attempt need not wait."""
    sys.exit(128 + number)


def main() -> None:
    """Run the order of the package and exit with its code."""
    signal.signal(signal.SIGTERM, _leave)
    # The nodes say whether this cluster takes tokens; one that says nothing takes none.
    os.environ.setdefault(AUTH_MODE, "disabled")
    configure_logs()
    try:
        outcome = drive(Order.from_bytes(Path(ORDER_FILE).read_bytes()), sys.stdout)
    except Exception as error:  # noqa: BLE001 - a traceback would show its message in the log
        _told(error, sys.stdout)
        sys.exit(error.exit_code if isinstance(error, RaywardError) else EXIT_FAILED)
    sys.exit(outcome.code)


if __name__ == "__main__":
    main()
