"""When a night closes, and how much of its budget is left."""

from datetime import UTC, date, datetime, timedelta

import pytest

from cluster.nights.budget import Purse
from cluster.nights.night import Night
from schemas.plan import Counts
from schemas.protocols import Report
from schemas.specs.gate import Budget
from schemas.specs.night import NightSpec


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "zone", "closes_at", "night"),
    [
        ("2026-11-21T03:00", "UTC", "2026-11-21T06:00", date(2026, 11, 21)),
        ("2026-11-21T22:00", "UTC", "2026-11-22T06:00", date(2026, 11, 21)),
        ("2026-11-21T12:00", "UTC", "2026-11-22T06:00", date(2026, 11, 21)),
        ("2026-11-21T23:30", "Europe/Berlin", "2026-11-22T05:00", date(2026, 11, 22)),
        ("2026-07-21T03:00", "Europe/Berlin", "2026-07-21T04:00", date(2026, 7, 21)),
    ],
)
def test_a_night_closes_at_the_next_time_of_day(
    now: str, zone: str, closes_at: str, night: date
) -> None:
    found = Night.begin(NightSpec(zone=zone, closes="06:00"), clock=lambda: at(now))
    assert (found.closes_at, found.date) == (at(closes_at), night)
    assert found.seconds_left == (at(closes_at) - at(now)).total_seconds()


def test_a_night_may_be_named_and_may_never_close() -> None:
    found = Night.begin(NightSpec(), date(2026, 1, 2), clock=lambda: at("2026-11-21T03:00"))
    assert (found.date, found.closes_at, found.seconds_left) == (date(2026, 1, 2), None, None)


def test_a_night_runs_out() -> None:
    now = [at("2026-11-21T03:00")]
    night = Night.begin(NightSpec(closes="06:00"), clock=lambda: now[0])
    now[0] += timedelta(hours=4)
    assert night.seconds_left == -3600


def ended(images: int, seconds: float = 1.0) -> Report:
    return Report(
        "score", "s", "published", counts=Counts(done=images), seconds={"shards": seconds}
    )


def test_without_a_budget_there_is_no_limit() -> None:
    assert Purse(None).next_slice(-5.0) is None


def test_images_run_out() -> None:
    purse = Purse(Budget(images=25, slice_images=10))
    taken = []
    while images := purse.next_slice(None):
        taken.append(images)
        purse.take(ended(images), 0.0)
    assert taken == [10, 10, 5]


def test_gpu_hours_run_out_by_what_slices_cost() -> None:
    purse = Purse(Budget(gpu_hours=1, slice_images=1000))
    assert purse.next_slice(None) == 1000
    purse.take(ended(1000), 2400.0)
    assert purse.next_slice(None) == 500  # 1200 s at 2.4 s an image
    purse.take(ended(500), 1200.0)
    assert purse.next_slice(None) == 0


def test_no_slice_begins_that_would_not_end_in_time() -> None:
    purse = Purse(Budget(slice_images=10))
    assert purse.next_slice(0.0) == 0
    assert purse.next_slice(1.0) == 10
    purse.take(ended(10, seconds=60.0), 0.0)
    assert purse.next_slice(59.0) == 0
    assert purse.next_slice(61.0) == 10


@pytest.mark.parametrize(
    ("now", "on", "closes", "closes_at"),
    [
        ("2026-11-21T06:05", None, "06:00", "2026-11-21T06:00"),
        ("2026-11-21T06:05", date(2026, 11, 21), "06:00", "2026-11-21T06:00"),
        ("2026-11-21T06:05", date(2026, 11, 20), "06:00", "2026-11-21T06:00"),
        ("2026-11-21T03:00", date(2026, 11, 20), "06:00", "2026-11-21T06:00"),
        ("2026-11-20T22:00", date(2026, 11, 20), "06:00", "2026-11-21T06:00"),
        ("2026-11-23T03:00", date(2026, 11, 20), "06:00", "2026-11-21T06:00"),
        ("2026-11-21T00:10", None, "22:00", "2026-11-20T22:00"),
    ],
)
def test_a_night_begun_again_closes_when_it_would_have(
    now: str, on: date | None, closes: str, closes_at: str
) -> None:
    found = Night.begin(NightSpec(closes=closes), on, clock=lambda: at(now))
    assert found.closes_at == at(closes_at)
    assert found.seconds_left == (at(closes_at) - at(now)).total_seconds()


@pytest.mark.parametrize(
    ("now", "closes_at"),
    [
        ("2026-10-25T00:15", "2026-10-25T01:30"),  # the first 02:15 of that night
        ("2026-10-25T01:15", "2026-10-25T01:30"),  # the second
        ("2026-03-29T00:00", "2026-03-29T01:30"),  # the clock leaps from two to three
    ],
)
def test_clocks_that_are_changed_do_not_end_a_night_too_soon(now: str, closes_at: str) -> None:
    spec = NightSpec(zone="Europe/Berlin", closes="02:30")
    found = Night.begin(spec, clock=lambda: at(now))
    assert found.seconds_left == (at(closes_at) - at(now)).total_seconds()
