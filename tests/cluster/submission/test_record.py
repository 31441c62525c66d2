"""How a submission ended, by the lake."""

from datetime import date
from pathlib import Path

import pytest

from cluster.lake.leases import hold
from cluster.lake.store import LakeStore
from cluster.submission.following import await_outcome
from cluster.submission.naming import first_attempt
from cluster.submission.order import Order
from cluster.submission.record import (
    Outcome,
    driver_of,
    outcome_of,
    record_outcome,
    record_start,
    recorded_ids,
    submission_key,
)
from schemas.jobfile import JobFile
from schemas.plan import Counts
from schemas.protocols import Report
from schemas.specs import SPECS
from schemas.specs.base import JobSpec
from tests.cluster.lake.toy import ids, run_toy

ID = first_attempt("night", date(2026, 11, 21))


def score(limit: float) -> JobSpec:
    spec = {"kind": "score", "name": "toy", "dataset": "toy", "model": "toy"}
    return SPECS["score"].model_validate({**spec, "max_reject_share": limit})


@pytest.fixture
def lake(tmp_path: Path) -> str:
    return str(tmp_path / "lake")


def begun(lake: str, limit: float = 0.5) -> LakeStore:
    store = LakeStore.open(lake, create=True)
    record_start(store.storage, Order(str(ID), JobFile(lake, (score(limit),), "night.yaml")))
    return store


def test_a_submission_that_left_no_record_is_uncertain(lake: str) -> None:
    store = begun(lake)
    assert outcome_of(store, str(ID)) is None
    assert outcome_of(store, "other-20261121-a1") is None
    assert list(recorded_ids(store.storage, "night-20261121")) == [str(ID)]
    assert list(recorded_ids(store.storage, "night-20261122")) == []


@pytest.mark.parametrize(("limit", "code"), [(0.5, 0), (0.05, 3)])
def test_the_exit_code_is_that_of_the_recorded_runs(lake: str, limit: float, code: int) -> None:
    store = begun(lake, limit)
    report = run_toy(lake, ids(10))
    assert report.counts.rejected == 2
    # What the driver noted as its code does not count where its runs are known.
    record_outcome(store.storage, str(ID), Outcome(99, (report,)))
    found = outcome_of(store, str(ID))
    assert found is not None
    assert (found.code, found.error) == (code, "")
    assert found.reports == (report,)


def test_a_run_that_never_became_visible_makes_the_end_uncertain(lake: str) -> None:
    store = begun(lake)
    invented = Report("score", "toy", "published", "20261121T000000000Z-score-abcdef")
    record_outcome(store.storage, str(ID), Outcome(0, (invented,)))
    assert outcome_of(store, str(ID)) is None


def test_an_error_is_kept_with_its_code(any_root: str) -> None:
    store = begun(any_root)
    nothing = Report("score", "toy", "up_to_date", counts=Counts(up_to_date=3))
    record_outcome(store.storage, str(ID), Outcome(5, (nothing,), "error: held"))
    assert outcome_of(store, str(ID)) == Outcome(5, (nothing,), "error: held")


def test_the_first_word_stands(lake: str) -> None:
    store = begun(lake)
    record_outcome(store.storage, str(ID), Outcome(1, (), "one"))
    record_outcome(store.storage, str(ID), Outcome(0, (), ""))
    found = outcome_of(store, str(ID))
    assert found is not None
    assert found.code == 1


def test_a_driver_that_lives_is_waited_for(lake: str) -> None:
    store = begun(lake)
    assert driver_of(store.storage, ID) is None
    assert await_outcome(store, str(ID)) is None
    with hold(store.storage, submission_key(ID)):
        assert driver_of(store.storage, ID) is not None
        record_outcome(store.storage, str(ID), Outcome(0))
        assert await_outcome(store, str(ID)) == Outcome(0)
    assert driver_of(store.storage, ID) is None
