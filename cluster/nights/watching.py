"""Watching a night's reports: what failed, what is held, and whether it is late."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cluster.nights.at_work import AtWork
from cluster.nights.night import Night
from cluster.nights.notifying import Notifier
from schemas.errors import LeaseHeld, RaywardError
from schemas.protocols import Report


def watched(
    reports: Iterator[Report], at_work: AtWork, night: Night, notifier: Notifier
) -> Iterator[Report]:
    """Hand reports on as they come, and tell of those that need a person.

    A night that is still at work when it closes is told once, at that moment. An error is told as
    that of the job that is at work.
    """
    late = _Lateness(night, notifier)
    with late.watch():
        try:
            for report in reports:
                late.look()
                _tell(report, notifier)
                yield report
        except LeaseHeld:  # another driver is at it: nothing is wrong
            raise
        except Exception as error:
            notifier.tell("failed", _failure(error, at_work))
            raise


def _tell(report: Report, notifier: Notifier) -> None:
    if report.status == "held":
        notifier.tell("held", _held(report))
    elif report.status == "failed":
        parts = ", ".join(report.failures)
        facts = _common(report) | {"what": f"Failed: {parts}", "remedy": _LOOK}
        notifier.tell("failed", facts)


_LOOK = "The log of the run says why; the same command goes on where it stopped."


def _common(report: Report) -> dict[str, str]:
    counted = [f"{n:,} {name.replace('_', ' ')}" for name, n in report.counts.to_dict().items()]
    return {
        "job": report.name,
        "kind": report.kind,
        "run": report.run_id or "",
        "model": str(report.facts.get("model", "")),
        "counts": f"{report.unit}: {', '.join(counted)}",
    }


def _held(report: Report) -> dict[str, str]:
    return _common(report) | {
        "what": f"{report.facts.get('model', report.name)}: {report.facts.get('gate', 'held')}",
        "remedy": f"rayward publish {report.run_id}, or rayward discard {report.run_id}",
    }


def _failure(error: Exception, at_work: AtWork) -> Mapping[str, str]:
    """What may be told of an error: its kind, for what it quotes may name a patient's file."""
    spec = at_work.spec
    what = error.what if isinstance(error, RaywardError) else type(error).__name__
    return {
        "job": spec.name if spec else "the night",
        "kind": spec.kind if spec else "",
        "what": f"Failed: {what}",
        "remedy": _LOOK,
    }


_LOOK_EVERY_S = 60.0
"""How long nobody looks at the clock."""


class _Lateness:
    """Tells once that a night is still at work though it closed."""

    def __init__(self, night: Night, notifier: Notifier) -> None:
        self._night, self._notifier = night, notifier
        self._told = threading.Lock()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Look at the closing time, however long a job takes."""
        left_s = self._night.seconds_left
        if left_s is None:
            yield
            return
        over = threading.Event()
        threading.Thread(target=self._wait, args=(over,), daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def _wait(self, over: threading.Event) -> None:
        """Look once the night closed, unless it is over.

        What waits counts seconds by another clock than the night's, which may be set meanwhile.
        """
        while (left_s := self._night.seconds_left) is not None and left_s > 0:
            if over.wait(min(left_s, _LOOK_EVERY_S)):
                return
        if not over.is_set():
            self.look()

    def look(self) -> None:
        """Tell, if the night is late and nobody was told."""
        left_s = self._night.seconds_left
        if left_s is None or left_s > 0 or not self._told.acquire(blocking=False):
            return
        closed = f"{self._night.closes_at:%H:%M %Z}"
        what = f"The night is still at work, though it closes at {closed}."
        self._notifier.tell("late", {"job": "the night is", "what": what})
