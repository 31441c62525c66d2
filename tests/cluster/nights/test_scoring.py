"""What a score job of a night comes to: versions, slices, and what keeps them back."""

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.lake.decisions import discard, publish
from cluster.lake.marking import mark_nightly
from cluster.lake.store import LakeStore
from cluster.nights.at_work import AtWork
from cluster.nights.night import Night
from cluster.nights.scoring import is_for_nights, run_scorings, scorings_of
from cluster.nights.watching import watched
from cluster.runner import Workplace, plan_jobs, work_through
from schemas.errors import BundleError, LeaseHeld, RunError
from schemas.jobfile import JobFile
from schemas.protocols import Report, Run
from schemas.specs.base import Execution
from schemas.specs.gate import Budget, Gate
from schemas.specs.night import NightSpec
from schemas.specs.score import ScoreSpec
from tests.cluster.nights.told import Told
from tests.jobs.seeding import DATASET
from tests.jobs.toy_scores import Nights, ToyPool

SPEC = ScoreSpec.model_validate(
    {
        "name": "scores",
        "dataset": DATASET,
        "model": "nightly",
        "budget": {"images": 4, "slice_images": 2},
    }
)


@pytest.fixture(scope="module")
def four_images(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """Four images, and a marked version that has yet to score them."""
    made = Nights(tmp_path_factory.mktemp("four"))
    made.add_bundle()
    made.arrive(range(4))
    return made


@pytest.fixture
def lake(four_images: Nights, tmp_path: Path) -> Nights:
    """A lake of the test's own, with four images."""
    return four_images.copy(tmp_path)


def pass_over(
    lake: Nights,
    day: int,
    pool: ToyPool | None = None,
    spec: ScoreSpec = SPEC,
    clock: Callable[[], dt.datetime] | None = None,
) -> list[Report]:
    date = dt.date(2026, 11, day)
    at_three = dt.datetime.combine(date, dt.time(3), dt.UTC)
    night = Night.begin(NightSpec(closes="06:00"), date, clock or (lambda: at_three))
    store = LakeStore.open(lake.root, night=date)
    return list(run_scorings(spec, store, pool or ToyPool(), night))


def told(reports: Sequence[Report]) -> list[tuple[str, str, int]]:
    return [(one.facts["model"], one.status, one.counts.done) for one in reports]


def models(lake: Nights) -> list[tuple[str, bool]]:
    return [(one.spec.model, one.in_slices) for one in scorings_of(SPEC, lake.store)]


def test_without_a_marked_bundle_the_job_says_how_to_mark_one(tmp_path: Path) -> None:
    lake = Nights(tmp_path)
    lake.add_bundle(nightly=False)
    with pytest.raises(BundleError, match=r"No bundle is marked.*rayward models NAME@VERSION"):
        pass_over(lake, 1)


def test_only_jobs_that_ask_for_it_are_for_nights() -> None:
    plain = ScoreSpec(dataset=DATASET, model="lungs@1")
    assert not is_for_nights(plain)
    assert is_for_nights(plain.model_copy(update={"model": "nightly"}))
    assert is_for_nights(plain.model_copy(update={"budget": SPEC.budget}))


def test_every_bundle_that_is_marked_scores(lake: Nights) -> None:
    lake.add_bundle("hearts", nightly=False)
    lake.add_bundle("hearts", 2)
    assert models(lake) == [("hearts@2", True), ("lungs@1", True)]
    hearts, lungs = [("hearts@2", "published", 2)] * 2, [("lungs@1", "published", 2)] * 2
    assert told(pass_over(lake, 1)) == [*hearts, *lungs]
    assert models(lake) == [("hearts@2", False), ("lungs@1", False)]


@pytest.mark.slow
def test_the_newest_studies_come_first(lake: Nights) -> None:
    lake.arrive(range(10, 12), day=3)
    lake.arrive(range(20, 22), day=2)
    pass_over(lake, 3)
    ids = lake.store.query("SELECT image_id FROM predictions")["image_id"].to_pylist()
    assert sorted(int(one, 16) for one in ids) == [10, 11, 20, 21]


def test_a_version_that_caught_up_takes_all_that_is_new(lake: Nights) -> None:
    named = SPEC.model_copy(update={"model": "lungs"})
    assert told(pass_over(lake, 1, spec=named)) == [("lungs@1", "published", 2)] * 2
    lake.arrive(range(10, 17))
    assert told(pass_over(lake, 2)) == [("lungs@1", "published", 7)]


@pytest.mark.slow
def test_of_three_versions_the_newest_catches_up_and_the_one_that_did_goes_on(
    lake: Nights,
) -> None:
    pass_over(lake, 1)
    lake.add_bundle(version=2)
    lake.add_bundle(version=3)
    assert models(lake) == [("lungs@1", False), ("lungs@3", True)]
    mark_nightly(lake.store, "lungs@3", nightly=False)
    assert models(lake) == [("lungs@1", False), ("lungs@2", True)]
    mark_nightly(lake.store, "lungs@1", nightly=False)
    assert models(lake) == [("lungs@2", True)]


@pytest.mark.slow
def test_a_plan_says_what_each_model_would_do(lake: Nights) -> None:
    pass_over(lake, 1)
    lake.arrive(range(10, 12))
    pass_over(lake, 2)
    lake.add_bundle(version=2)
    planned = list(plan_jobs(JobFile(lake.root, (SPEC,), "night.yaml"), []))
    assert [(one.status, *told([one])[0]) for one in planned] == [
        ("up_to_date", "lungs@1", "up_to_date", 0),
        ("planned", "lungs@2", "planned", 4),
    ]
    assert planned[1].counts.deferred == 2


def test_while_a_slice_waits_for_a_decision_no_other_begins(lake: Nights) -> None:
    strict = SPEC.model_copy(update={"gate": Gate(min_count=3)})
    (held,) = pass_over(lake, 1, spec=strict)
    assert (held.status, held.counts.deferred) == ("held", 2)
    (waiting,) = pass_over(lake, 2, spec=strict)
    assert waiting.status == "waiting"
    assert f"a decision on run {held.run_id}" in waiting.facts["waits for"]
    assert held.run_id is not None
    publish(lake.store.storage, held.run_id)
    assert told(pass_over(lake, 3)) == [("lungs@1", "published", 2)]


def test_a_closed_night_begins_no_slice(lake: Nights) -> None:
    """The clock strikes six after the first slice; the second waits for the next night."""

    def strikes(*hours: int) -> Callable[[], dt.datetime]:
        times = iter(hours)
        return lambda: dt.datetime(2026, 11, 1, next(times, 7), tzinfo=dt.UTC)

    assert told(pass_over(lake, 1, clock=strikes(5))) == [("lungs@1", "waiting", 0)]
    assert told(pass_over(lake, 1, clock=strikes(5, 5))) == [("lungs@1", "published", 2)]
    assert told(pass_over(lake, 2)) == [("lungs@1", "published", 2)]


class Cut(ToyPool):
    """Lets a scoring begin and ends there."""

    def run_shards(self, run: Run, execution: Execution) -> None:
        raise KeyboardInterrupt


def test_a_slice_that_was_cut_off_goes_on_and_the_next_follows(lake: Nights) -> None:
    with pytest.raises(KeyboardInterrupt):
        pass_over(lake, 1, Cut())
    reports = pass_over(lake, 2)
    assert told(reports) == [("lungs@1", "published", 2)] * 2
    assert [one.facts["night"] for one in reports] == ["2026-11-01", "2026-11-02"]
    assert told(pass_over(lake, 3)) == [("lungs@1", "up_to_date", 0)]


def test_what_came_since_a_run_was_cut_off_is_done_as_well(lake: Nights) -> None:
    plain: Any = ScoreSpec(name="scores", dataset=DATASET, model="lungs@1")

    def work(pool: ToyPool) -> list[Report]:
        place = Workplace(lake.store, pool, Night.begin(NightSpec()), pytest.fail)
        return list(work_through([plain], place))

    with pytest.raises(KeyboardInterrupt):
        work(Cut())
    lake.arrive(range(10, 13))
    assert [(one.counts.done, one.resumed) for one in work(ToyPool())] == [(4, True), (3, False)]
    assert [one.status for one in work(ToyPool())] == ["up_to_date"]


class Fails(ToyPool):
    """Can't compute what one model scores."""

    def __init__(self, model: str, error: Exception) -> None:
        super().__init__()
        self._model, self._error = model, error

    def run_shards(self, run: Run, execution: Execution) -> None:
        if run.plan.facts["model"] == self._model:
            raise self._error
        super().run_shards(run, execution)


def test_a_model_that_fails_keeps_no_other_from_its_work(lake: Nights) -> None:
    lake.add_bundle("hearts")
    reports = pass_over(lake, 1, Fails("hearts@1", RunError("Out of luck")))
    assert [one.status for one in reports] == ["failed", "published", "published"]
    assert reports[0].failures == {"hearts@1": "Out of luck."}


def test_a_job_that_dies_on_its_second_model_is_told_by_its_own_name(lake: Nights) -> None:
    lake.add_bundle("hearts")
    night, at_work, bell = Night.begin(NightSpec()), AtWork(), Told()
    pool = Fails("lungs@1", OSError("The store is gone"))
    place = Workplace(lake.store, pool, night, pytest.fail, at_work)
    later = ScoreSpec(name="later", dataset=DATASET, model="hearts@1")
    found = watched(work_through([SPEC, later], place), at_work, night, bell)
    assert next(found).facts["model"] == "hearts@1"
    with pytest.raises(OSError, match="gone"):
        list(found)
    assert [(event, one["job"], one["what"]) for event, one in bell.events] == [
        ("failed", "scores", "Failed: OSError")
    ]


def test_another_driver_at_the_same_model_ends_the_night(lake: Nights) -> None:
    with pytest.raises(LeaseHeld):
        pass_over(lake, 1, Fails("lungs@1", LeaseHeld("Held")))


@pytest.mark.slow
def test_a_night_on_disk_and_on_s3(any_root: str) -> None:
    """An upgrade, a held run and its publication, wherever the lake lies."""
    lake = Nights(any_root)
    lake.add_bundle()
    lake.arrive(range(4))
    assert told(pass_over(lake, 1)) == [("lungs@1", "published", 2)] * 2
    lake.add_bundle(version=2)
    lake.arrive(range(10, 12), day=2)
    upgrade = [("lungs@2", "published", 2)] * 2
    assert told(pass_over(lake, 2)) == [("lungs@1", "published", 2), *upgrade]
    assert told(pass_over(lake, 3)) == [
        ("lungs@1", "up_to_date", 0), ("lungs@2", "published", 2),
    ]  # fmt: skip
    lake.arrive(range(20, 23), day=4)
    strict = SPEC.model_copy(update={"gate": Gate(min_count=9)})
    (held,) = pass_over(lake, 4, spec=strict)
    assert (held.facts["model"], held.status, lake.visible()) == ("lungs@2", "held", 12)
    assert told(pass_over(lake, 5, spec=strict)) == [("lungs@2", "up_to_date", 0)]
    assert held.run_id is not None
    publish(lake.store.storage, held.run_id)
    assert lake.visible() == 15


def test_a_slice_that_is_discarded_is_no_catching_up(lake: Nights) -> None:
    """Else the version would score all the rest at once, whatever the budget says."""
    lake.arrive(range(10, 16))
    strict = SPEC.model_copy(update={"gate": Gate(min_count=3)})
    (held,) = pass_over(lake, 1, spec=strict)
    assert held.run_id is not None
    discard(lake.store.storage, held.run_id)
    assert models(lake) == [("lungs@1", True)]
    reports = pass_over(lake, 2)
    assert told(reports) == [("lungs@1", "published", 2)] * 2
    assert [one.counts.deferred for one in reports] == [6, 4]


UNBOUNDED = SPEC.model_copy(update={"budget": Budget(slice_images=2)})


def test_slices_end_where_nothing_can_be_read(lake: Nights) -> None:
    away = ToyPool(away=frozenset(range(4)))
    assert told(pass_over(lake, 1, away, UNBOUNDED)) == [("lungs@1", "published", 0)]


def test_images_that_can_not_be_read_keep_no_slice_from_older_ones(lake: Nights) -> None:
    newest = range(10, 12)
    lake.arrive(newest, day=3)
    away = ToyPool(away=frozenset(newest))
    assert told(pass_over(lake, 3, away, UNBOUNDED)) == [("lungs@1", "published", 0)]
    reports = pass_over(lake, 4, away, UNBOUNDED)
    assert [done for _, _, done in told(reports)] == [2, 2, 0]
    assert told(pass_over(lake, 5, spec=UNBOUNDED)) == [("lungs@1", "published", 2)]
