"""A night: its date, its clock, and when it closes."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from schemas.specs.night import NightSpec

Clock = Callable[[], datetime]
"""The time now, with its zone."""


def utc_now() -> datetime:
    """The time by this machine's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Night:
    """One pass over a job file."""

    date: dt.date
    """The night's name: runs begun in it are filed under it."""
    closes_at: datetime | None
    """When it is late; never, where the job file does not say."""
    clock: Clock = utc_now

    @staticmethod
    def begin(spec: NightSpec, on: dt.date | None = None, clock: Clock = utc_now) -> "Night":
        """A night that begins now, under today's date in the file's zone or under ``on``.

        It closes at the next time of day that the file names.
        """
        zone = ZoneInfo(spec.zone)
        now = clock().astimezone(zone)
        closes_at = None
        if spec.closes is not None:
            closes = time.fromisoformat(spec.closes)
            day = now.date() if now.time() < closes else now.date() + timedelta(days=1)
            closes_at = datetime.combine(day, closes, zone)
        return Night(on or now.date(), closes_at, clock)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until it closes, below zero once it is late; none where it never is."""
        if self.closes_at is None:
            return None
        return (self.closes_at - self.clock()).total_seconds()
