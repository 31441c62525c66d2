"""A held run whose driver died before it could tell anybody is told by the next one, once."""

from pathlib import Path
from typing import Any

import pytest

from cluster.lake import committing
from cluster.lake.decisions import discard
from cluster.nights.night import Night
from cluster.runner import Workplace, exit_code, work_through
from schemas.jobfile import JobFile
from schemas.protocols import Report
from schemas.specs.night import NightSpec
from schemas.specs.score import ScoreSpec
from tests.jobs.seeding import DATASET
from tests.jobs.toy_scores import Nights, ToyPool

GATE = {"min_count": 5}


class PowerCut(BaseException):
    """Ends everything."""


@pytest.fixture
def lake(tmp_path: Path) -> Nights:
    made = Nights(tmp_path)
    made.add_bundle()
    made.arrive(range(4))
    return made


def job(**changes: Any) -> ScoreSpec:
    stated = {"name": "scores", "dataset": DATASET, "model": "lungs", "gate": GATE}
    return ScoreSpec.model_validate(stated | changes)


def work(lake: Nights, *specs: ScoreSpec) -> tuple[list[Report], int]:
    place = Workplace(lake.store, ToyPool(), Night.begin(NightSpec()), pytest.fail)
    reports = list(work_through(specs, place))
    return reports, exit_code(reports, JobFile(lake.root, specs, "night.yaml"))


def die_after_the_commit(lake: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(run: object) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(committing, "close", cut)
        with pytest.raises(PowerCut):
            work(lake, job())


def states(reports: list[Report]) -> list[tuple[str, str]]:
    return [(one.name, one.status) for one in reports]


def test_the_next_driver_tells_once(lake: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    die_after_the_commit(lake, monkeypatch)
    reports, code = work(lake, job(name="renamed"))
    assert (states(reports), code) == ([("renamed", "held"), ("renamed", "up_to_date")], 4)
    held = reports[0]
    assert held.facts["gate"] == "held: 4 images came, at least 5; reference: no images"
    assert (held.counts.done, held.run_id is not None) == (4, True)
    reports, code = work(lake, job())
    assert (states(reports), code) == ([("scores", "up_to_date")], 0)


def test_what_its_own_driver_told_is_not_told_again(lake: Nights) -> None:
    reports, code = work(lake, job(), job(name="again"))
    assert (states(reports), code) == ([("scores", "held"), ("again", "up_to_date")], 4)
    assert states(work(lake, job())[0]) == [("scores", "up_to_date")]


def test_a_driver_that_dies_later_in_its_night_leaves_it_to_be_told_again(lake: Nights) -> None:
    place = Workplace(lake.store, ToyPool(), Night.begin(NightSpec()), pytest.fail)
    reports = work_through([job()], place)
    assert next(reports).status == "held"
    reports.close()  # type: ignore[attr-defined]
    assert states(work(lake, job())[0]) == [("scores", "held"), ("scores", "up_to_date")]


def test_other_jobs_and_decided_runs_are_not_told(
    lake: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    die_after_the_commit(lake, monkeypatch)
    lake.add_bundle("hearts")
    lake.arrive(range(10, 20), dataset="elsewhere")
    hearts, elsewhere = job(model="hearts", gate=None), job(dataset="elsewhere")
    assert {one.status for one in work(lake, hearts, elsewhere)[0]} == {"published"}
    (held,) = [one for one in lake.store.runs_of(_key(lake)) if one["state"] == "held"]
    discard(lake.store.storage, held["run_id"])
    assert states(work(lake, job())[0]) == [("scores", "up_to_date")]


def test_a_renamed_job_goes_on_with_its_run_under_its_new_name(lake: Nights) -> None:
    class Cut(ToyPool):
        def finish(self, run: object) -> None:
            raise PowerCut

    place = Workplace(lake.store, Cut(), Night.begin(NightSpec()), pytest.fail)
    with pytest.raises(PowerCut):
        list(work_through([job()], place))
    reports, code = work(lake, job(name="renamed"))
    assert (states(reports), code) == ([("renamed", "held")], 4)
    assert reports[0].resumed


def _key(lake: Nights) -> tuple[str, ...]:
    return ("score", lake.store.bundle("lungs")["model_id"])
