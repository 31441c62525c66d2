"""A night: its date, its clock, and when it closes."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from schemas.specs.night import NightSpec

Clock = Callable[[], datetime]
"""The time now, with its zone."""
_STILL = timedelta(hours=6)
"""A pass begun so soon after closing time belongs to the night that closed: it was begun again."""


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
        """A night that begins now or goes on, under today's date in the file's zone or ``on``.

        It closes at the time of day that the file names, on its date or, where that has passed by
        hours, on the day after. So a night that is begun again after it closed is late.
        """
        zone = ZoneInfo(spec.zone)
        now = clock().astimezone(UTC)
        today = now.astimezone(zone).date()
        if spec.closes is None:
            return Night(on or today, None, clock)
        closes = time.fromisoformat(spec.closes)
        # Without a date, it may be last night's that is begun again.
        days = [on] if on else [today - timedelta(days=1), today]
        closings = [_instant(day, closes, zone) for day in days]
        last = _instant(days[-1] + timedelta(days=1), closes, zone)
        closes_at = next((one for one in closings if now < one + _STILL), last)
        return Night(on or today, closes_at.astimezone(zone), clock)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until it closes, below zero once it is late; none where it never is."""
        if self.closes_at is None:
            return None
        # In UTC: times of one zone are compared by what the wall shows.
        return (self.closes_at.astimezone(UTC) - self.clock().astimezone(UTC)).total_seconds()


def _instant(day: dt.date, at: time, zone: ZoneInfo) -> datetime:
    """A time of day in UTC: of two the second, and where the clock leaps over it, after the leap.

    PEP 495 gives these as the later of the two readings.
    """
    readings = (datetime.combine(day, at.replace(fold=fold), zone) for fold in (0, 1))
    return max(one.astimezone(UTC) for one in readings)
