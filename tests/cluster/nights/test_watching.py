"""What of a night is told: failed and held jobs, and that it is late."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from cluster.nights.at_work import AtWork
from cluster.nights.night import Night
from cluster.nights.watching import watched
from schemas.errors import LeaseHeld, SourceError
from schemas.protocols import Report
from schemas.specs import JobSpec
from schemas.specs.clean import CleanSpec
from schemas.specs.ingest import IngestSpec
from schemas.specs.night import NightSpec
from schemas.specs.score import ScoreSpec
from tests.cluster.nights.told import Told

JOBS: list[JobSpec] = [
    IngestSpec(name="arrivals", source="archive"),
    CleanSpec(dataset="arrivals"),
    ScoreSpec(name="scores", dataset="arrivals", model="nightly"),
]
START = datetime(2026, 11, 21, 3, tzinfo=UTC)
DONE = Report("ingest", "arrivals", "published", "R1")


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def night(clock: Clock | None = None, closes: str | None = None) -> Night:
    return Night.begin(NightSpec(closes=closes), clock=clock or Clock())


def at_work(place: int = 1) -> AtWork:
    """That job is at work."""
    return AtWork(JOBS[place])


def test_what_went_well_is_not_told() -> None:
    told = Told()
    assert list(watched(iter([DONE]), at_work(), night(closes="06:00"), told)) == [DONE]
    assert told.events == []


def test_a_held_run_is_told_with_what_moved_and_what_to_do() -> None:
    facts = {"model": "lungs@2", "gate": "held: psi 3.1, at most 0.25"}
    report = Report("score", "scores", "held", "R7", facts=facts)
    told = Told()
    list(watched(iter([DONE, report]), at_work(), night(), told))
    ((event, message),) = told.events
    assert (event, message["job"], message["run"], message["model"]) == (
        "held", "scores", "R7", "lungs@2",
    )  # fmt: skip
    assert message["what"] == "lungs@2: held: psi 3.1, at most 0.25"
    assert message["remedy"] == "rayward publish R7, or rayward discard R7"


def test_of_an_error_its_kind_is_told_and_nothing_it_quotes() -> None:
    def reports() -> Iterator[Report]:
        yield DONE
        raise SourceError("The archive can't be listed", where="/archive/Doe^Jane", got="denied")

    told = Told()
    with pytest.raises(SourceError):
        list(watched(reports(), at_work(), night(), told))
    ((event, message),) = told.events
    assert (event, message["job"], message["kind"]) == ("failed", "clean", "clean")
    assert message["what"] == "Failed: The archive can't be listed"
    assert "Doe" not in str(message)


def test_a_job_that_fails_after_a_report_of_its_own_is_the_one_that_is_told() -> None:
    """A nightly job has a report for each model; the one after them dies with the job."""

    def reports(turn: AtWork) -> Iterator[Report]:
        for spec in turn.through(JOBS):
            yield Report(spec.kind, spec.name, "published")
            if spec.kind == "score":
                raise OSError("/archive/Doe^Jane")

    told, turn = Told(), AtWork(JOBS[0])
    with pytest.raises(OSError, match="Doe"):
        list(watched(reports(turn), turn, night(), told))
    ((event, message),) = told.events
    assert (event, message["job"], message["kind"]) == ("failed", "scores", "score")


def test_an_error_after_all_jobs_is_the_nights() -> None:
    def reports(turn: AtWork) -> Iterator[Report]:
        yield from (Report(spec.kind, spec.name, "published") for spec in turn.through(JOBS))
        raise OSError("The lake is gone")

    told, turn = Told(), AtWork(JOBS[0])
    with pytest.raises(OSError, match="gone"):
        list(watched(reports(turn), turn, night(), told))
    assert [(message["job"], message["kind"]) for _, message in told.events] == [("the night", "")]


def test_that_another_driver_is_at_work_is_no_failure() -> None:
    def reports() -> Iterator[Report]:
        yield DONE
        raise LeaseHeld("Another run holds this work")

    told = Told()
    with pytest.raises(LeaseHeld):
        list(watched(reports(), at_work(), night(), told))
    assert told.events == []


def test_of_a_foreign_error_its_class_is_told() -> None:
    def reports() -> Iterator[Report]:
        raise ValueError("Doe^Jane")
        yield DONE

    told = Told()
    with pytest.raises(ValueError, match="Doe"):
        list(watched(reports(), at_work(), night(), told))
    assert [message["what"] for _, message in told.events] == ["Failed: ValueError"]


def test_models_that_failed_are_told_by_name() -> None:
    failed = Report("score", "scores", "failed", failures={"lungs@2": "got /archive/Doe^Jane"})
    told = Told()
    list(watched(iter([failed]), at_work(), night(), told))
    ((event, message),) = told.events
    assert (event, message["what"]) == ("failed", "Failed: lungs@2")
    assert "Doe" not in str(message)


def test_a_night_at_work_when_it_closes_is_told_once() -> None:
    clock, told = Clock(), Told()

    def reports() -> Iterator[Report]:
        yield DONE
        clock.now += timedelta(hours=3)
        yield DONE
        yield DONE

    list(watched(reports(), at_work(), night(clock, "06:00"), told))
    ((event, message),) = told.events
    assert event == "late"
    assert message["what"] == "The night is still at work, though it closes at 06:00 UTC."


def test_a_job_need_not_end_for_that_to_be_told() -> None:
    """The clock is looked at while a job is at work: nobody has to wait for its report."""
    told = Told()
    due = START.replace(hour=5, minute=59, second=59, microsecond=900_000)
    started = datetime.now(UTC)

    def clock() -> datetime:
        return due + (datetime.now(UTC) - started)

    tonight = Night.begin(NightSpec(closes="06:00"), clock=clock)

    def reports() -> Iterator[Report]:
        deadline = datetime.now(UTC) + timedelta(seconds=20)
        while not told.events and datetime.now(UTC) < deadline:
            pass
        assert told.names == ["late"]
        yield DONE

    list(watched(reports(), at_work(), tonight, told))
    assert told.names == ["late"]


def test_a_clock_that_is_set_back_delays_that_it_is_told_and_no_more() -> None:
    told = Told()
    due = START.replace(hour=5, minute=59, second=59, microsecond=600_000)
    started = datetime.now(UTC)
    back = [timedelta(0)]

    def clock() -> datetime:
        return due + (datetime.now(UTC) - started) - back[0]

    tonight = Night.begin(NightSpec(closes="06:00"), clock=clock)

    def reports() -> Iterator[Report]:
        back[0] = timedelta(milliseconds=150)
        deadline = datetime.now(UTC) + timedelta(seconds=20)
        while not told.events and datetime.now(UTC) < deadline:
            time.sleep(0.01)
        assert told.names == ["late"]
        assert clock() >= START.replace(hour=6)
        yield DONE

    list(watched(reports(), at_work(), tonight, told))
