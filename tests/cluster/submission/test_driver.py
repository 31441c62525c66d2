"""The driver of a submission: runs the jobs, and leaves word in the lake."""

import io
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.lake.leases import hold
from cluster.lake.store import LakeStore
from cluster.submission import driver
from cluster.submission.naming import SubmissionId
from cluster.submission.order import Order
from cluster.submission.record import driver_of, outcome_of, recorded_ids, submission_key
from schemas.errors import LakeError, LeaseHeld, UsageError
from schemas.jobfile import JobFile
from schemas.plan import Counts
from schemas.protocols import Report
from schemas.specs import SPECS

FIRST = SubmissionId("night", "20261121", 1)
NOTHING = Report("ingest", "a", "up_to_date", counts=Counts(up_to_date=3))
HELD = LeaseHeld("Another run holds this work", where="ingest/a")


@pytest.fixture
def lake(tmp_path: Path) -> str:
    return str(tmp_path / "lake")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver.time, "sleep", lambda _seconds: None)


def order(lake: str, attempt: int = 1) -> Order:
    spec = SPECS["ingest"].model_validate({"kind": "ingest", "name": "a", "source": "/d"})
    return Order(f"night-20261121-a{attempt}", JobFile(lake, (spec,), "night.yaml"))


def runs(monkeypatch: pytest.MonkeyPatch, *told: Report | BaseException) -> list[Any]:
    """Stand in for the runner: each call tells the next thing."""
    left, asked = list(told), []

    def run_jobs(job_file: JobFile, **how: Any) -> Iterator[Report]:
        asked.append((job_file, how))
        one = left.pop(0)
        if isinstance(one, BaseException):
            raise one
        yield one

    monkeypatch.setattr(driver, "run_jobs", run_jobs)
    return asked


def test_it_runs_the_order_and_leaves_word(lake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, log = runs(monkeypatch, NOTHING), io.StringIO()
    outcome = driver.drive(order(lake), log)
    assert outcome.code == 0
    assert "nothing to do" in log.getvalue()
    ((job_file, how),) = asked
    assert (job_file, how["address"]) == (order(lake).job_file, None)
    store = LakeStore.open(lake)
    assert outcome_of(store, "night-20261121-a1") == outcome
    assert driver_of(store.storage, FIRST) is None


def test_an_error_is_told_and_recorded_with_its_code(
    lake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs(monkeypatch, LakeError("No room", where="s3://user:secret@bucket/x"))
    log = io.StringIO()
    assert driver.drive(order(lake), log).code == 1
    found = outcome_of(LakeStore.open(lake), "night-20261121-a1")
    assert found is not None
    assert found.error == "error: No room (s3://***@bucket/x)."
    assert "secret" not in log.getvalue()


def test_a_first_attempt_does_not_wait_for_work_that_is_held(
    lake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs(monkeypatch, HELD)
    assert driver.drive(order(lake), io.StringIO()).code == 5


def test_a_later_attempt_waits_for_the_leases_of_a_dead_driver(
    lake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, log = runs(monkeypatch, HELD, HELD, NOTHING), io.StringIO()
    assert driver.drive(order(lake, attempt=2), log).code == 0
    assert len(asked) == 3
    assert log.getvalue().count("waiting: Another run holds this work") == 2


def test_what_one_pass_reported_counts_after_the_next(
    lake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Report("ingest", "a", "held", counts=Counts(done=3))

    def run_jobs(_file: JobFile, **_how: Any) -> Iterator[Report]:
        # The first job's held run is up to date for whoever looks again.
        yield NOTHING if passes else held
        passes.append(1)
        if len(passes) == 1:
            raise HELD

    passes: list[int] = []
    monkeypatch.setattr(driver, "run_jobs", run_jobs)
    outcome = driver.drive(order(lake, attempt=2), io.StringIO())
    assert len(passes) == 2
    assert [one.status for one in outcome.reports] == ["held", "up_to_date"]
    assert outcome.code == 4
    assert outcome_of(LakeStore.open(lake), "night-20261121-a2") == outcome


def test_a_foreign_error_is_told_without_its_message_and_recorded(
    lake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = ValueError("can't parse /archive/MUELLER_ANNA/1.dcm")
    runs(monkeypatch, error)
    log = io.StringIO()
    outcome = driver.drive(order(lake), log)
    assert outcome.code == 1
    assert outcome_of(LakeStore.open(lake), "night-20261121-a1") == outcome
    assert re.fullmatch(r"error: ValueError at test_driver\.py:\d+", outcome.error)
    assert log.getvalue().splitlines()[-1] == outcome.error
    assert "MUELLER" not in log.getvalue()
    monkeypatch.setenv("RAYWARD_TRACEBACK", "1")
    runs(monkeypatch, error)
    driver.drive(order(lake, attempt=2), log)
    assert "MUELLER" in log.getvalue()


def test_two_drivers_of_a_night_do_not_work_side_by_side(
    lake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = runs(monkeypatch, NOTHING)
    store = LakeStore.open(lake, create=True)
    key = submission_key(FIRST)
    with hold(store.storage, key), pytest.raises(LeaseHeld):
        driver.drive(order(lake, attempt=2), io.StringIO(), patience_s=0)
    assert asked == []
    assert list(recorded_ids(store.storage)) == []


def started(
    lake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[..., object]
) -> int:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".rayward").mkdir()
    (tmp_path / ".rayward/order.json").write_bytes(order(lake).to_bytes())
    monkeypatch.setattr(driver, "drive", act)
    # What `main` sets for its process must not outlast the test.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(driver, "configure_logs", lambda: None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as end:
            driver.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    return int(str(end.value.code))


def test_it_leaves_in_good_order_when_asked_to_stop(
    lake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(*_: object) -> None:
        with hold(LakeStore.open(lake, create=True).storage, ("a",)):
            signal.raise_signal(signal.SIGTERM)

    assert started(lake, tmp_path, monkeypatch, act) == 143
    with hold(LakeStore.open(lake).storage, ("a",)):
        pass  # given up: nobody has to wait for it to lapse


def test_its_own_mistakes_end_it_with_their_code(
    lake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def act(*_: object) -> None:
        raise UsageError("Wrong")

    assert started(lake, tmp_path, monkeypatch, act) == 2
    assert capsys.readouterr().out == "error: Wrong.\n"


def test_a_foreign_error_before_the_jobs_shows_no_message_either(
    lake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def act(*_: object) -> None:
        raise OSError("can't open /archive/MUELLER_ANNA")

    assert started(lake, tmp_path, monkeypatch, act) == 1
    shown = capsys.readouterr()
    assert re.fullmatch(r"error: OSError at test_driver\.py:\d+\n", shown.out)
    assert shown.err == ""
