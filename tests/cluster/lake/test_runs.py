"""Crashes, races and late arrivals: every run's rows appear exactly once."""

import json
from pathlib import Path

import pytest

from cluster.lake import commit, committing
from cluster.lake.commit import open_table
from cluster.lake.decisions import list_runs
from cluster.lake.runs import FINISH, Cost, LakeRun, RunWriter
from cluster.lake.store import LakeStore
from cluster.storage import Storage, open_storage
from schemas.errors import CountsMismatch, RunError
from schemas.plan import ShardResult
from tests.cluster.lake.toy import (
    SPEC,
    InlinePool,
    compute,
    contents,
    ids,
    is_bad,
    run_toy,
)

IMAGES = ids(10)


class Crash(BaseException):
    """The driver ends here, as if by SIGKILL: nothing catches it."""


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "lake")


@pytest.fixture
def undisturbed(tmp_path: Path) -> dict[str, list[dict[str, object]]]:
    run_toy(str(tmp_path / "undisturbed"), IMAGES)
    return contents(str(tmp_path / "undisturbed"))


def test_a_run_publishes_every_input_once(root: str) -> None:
    report = run_toy(root, IMAGES)
    assert report.status == "published"
    assert report.counts.to_dict() == {
        "input": 10, "done": 8, "up_to_date": 0, "rejected": 2, "held": 0, "deferred": 0, "gone": 0,
    }  # fmt: skip
    assert report.facts == {"good": 8}
    seen = contents(root)
    assert [row["image_id"] for row in seen["predictions"]] == [
        one for one in IMAGES if not is_bad(one)
    ]
    assert [row["image_id"] for row in seen["rejects"]] == [one for one in IMAGES if is_bad(one)]
    assert seen["metrics"][0]["value"] == 10


def test_a_second_run_has_nothing_to_do(root: str) -> None:
    run_toy(root, IMAGES)
    versions = {table: open_table(open_storage(root), table) for table in ("runs", "predictions")}
    report = run_toy(root, IMAGES)
    assert (report.status, report.run_id, report.counts.up_to_date) == ("up_to_date", None, 10)
    for table, before in versions.items():
        after = open_table(open_storage(root), table)
        assert before and after and after.version() == before.version()


def test_new_images_alone_are_computed(root: str) -> None:
    run_toy(root, IMAGES)
    report = run_toy(root, ids(13))
    assert (report.counts.done, report.counts.up_to_date) == (3, 10)
    assert len(contents(root)["predictions"]) == 11


def _crash_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """End the driver before the ``step``-th write to the store or to a Delta log.

    The lake is then as it is right after the write before.
    """
    taken = 0

    def crashing(function):  # type: ignore[no-untyped-def]
        def wrapped(*args, **kwargs):  # type: ignore[no-untyped-def]
            nonlocal taken
            taken += 1
            if taken == step:
                raise Crash
            return function(*args, **kwargs)

        return wrapped

    for name in ("put", "put_new", "delete"):
        patch.setattr(Storage, name, crashing(getattr(Storage, name)))
    patch.setattr(commit, "_append", crashing(commit._append))


def test_a_crash_at_any_step_loses_and_doubles_nothing(
    tmp_path: Path, undisturbed: dict[str, list[dict[str, object]]]
) -> None:
    crashes = 0
    for step in range(1, 80):
        root = str(tmp_path / f"{step}")
        LakeStore.open(root, create=True)
        with pytest.MonkeyPatch.context() as patch:
            # A dead driver's lease: the test's own process lives on, so its lease must lapse.
            patch.setattr("cluster.lake.leases.LAPSE_S", -1.0)
            _crash_at(patch, step)
            try:
                run_toy(root, IMAGES)
                crashed = False
            except Crash:
                crashed = True
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("cluster.lake.leases.LAPSE_S", -1.0)
            again = run_toy(root, IMAGES)
            third = run_toy(root, IMAGES)
        assert contents(root) == undisturbed, f"crash before write {step}"
        assert third.status == "up_to_date"
        assert again.counts.input == 10
        assert list(open_storage(root).list("_open")) == []
        if not crashed:
            break
        crashes += 1
    else:
        pytest.fail("the run has more steps than the test tries")
    # Lease, plan, mark, 4 shards of 3 tables and a receipt, the finish, 4 commits, the end.
    assert crashes > 20


def test_the_receipt_of_the_finish_counts_as_no_shard(root: str) -> None:
    def crash_on_third(run: LakeRun, shard: str) -> None:
        if shard == "00002":
            raise Crash

    with pytest.raises(Crash):
        run_toy(root, IMAGES, InlinePool(crash_on_third))
    storage = open_storage(root)
    (unfinished,) = list_runs(storage)
    nothing = ShardResult({}, done=0, rejected=0)
    RunWriter(storage, unfinished.run_id).record(FINISH, nothing, Cost(cpu_s=1.0))
    (after,) = list_runs(storage)
    assert (after.shards_done, after.shards) == (2, 4)


def test_a_resumed_run_is_the_same_run(root: str) -> None:
    def crash_on_third(run: LakeRun, shard: str) -> None:
        if shard == "00002":
            raise Crash

    with pytest.raises(Crash):
        run_toy(root, IMAGES, InlinePool(crash_on_third))
    (unfinished,) = list_runs(open_storage(root))
    assert (unfinished.state, unfinished.shards_done, unfinished.shards) == ("unfinished", 2, 4)

    computed: list[str] = []
    report = run_toy(root, ids(20), InlinePool(lambda run, shard: computed.append(shard)))
    # The plan is that of the first driver: images that came since belong to the next run.
    assert report.run_id == unfinished.run_id
    assert computed == ["00002", "00003"]
    assert report.counts.input == 10


def test_a_run_of_another_spec_is_abandoned(root: str) -> None:
    def crash(run: LakeRun, shard: str) -> None:
        raise Crash

    with pytest.raises(Crash):
        run_toy(root, IMAGES, InlinePool(crash))
    run_toy(root, IMAGES, spec=SPEC.model_copy(update={"images": "all"}))
    states = {one.state for one in list_runs(open_storage(root))}
    assert states == {"abandoned", "published"}
    assert len(contents(root)["predictions"]) == 8


def test_readers_see_nothing_of_a_run_before_it_is_published(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    append = commit._append

    def look(run: LakeRun, shard: str) -> None:
        seen.append(sum(map(len, contents(root).values())))

    def append_and_look(handle, table, files, transactions):  # type: ignore[no-untyped-def]
        seen.append(sum(map(len, contents(root).values())))
        append(handle, table, files, transactions)

    monkeypatch.setattr(commit, "_append", append_and_look)
    run_toy(root, IMAGES, InlinePool(look))
    assert seen == [0] * 8  # four shards, then predictions, rejects, metrics and runs
    assert sum(map(len, contents(root).values())) == 11


def test_a_late_parent_cannot_double_its_halves(
    root: str, undisturbed: dict[str, list[dict[str, object]]]
) -> None:
    halved: list[str] = []

    def halve_first(run: LakeRun, shard: str) -> None:
        if not halved:
            halved.append(shard)
            assert run.halve(shard)

    def late_parent(run: LakeRun, shard: str) -> None:
        halve_first(run, shard)
        if shard == "00001":
            assert not run.record("00000", compute(run.rows("00000")))

    report = run_toy(root, IMAGES, InlinePool(late_parent))
    assert report.counts.input == 10
    assert contents(root) == undisturbed


def test_a_shard_that_is_done_is_not_halved(root: str) -> None:
    def done_then_halve(run: LakeRun, shard: str) -> None:
        if shard == "00001":
            assert not run.halve("00000")

    assert run_toy(root, IMAGES, InlinePool(done_then_halve)).counts.input == 10


def test_the_second_attempt_of_a_shard_leaves_no_files(root: str) -> None:
    def twice(run: LakeRun, shard: str) -> None:
        assert run.record(shard, compute(run.rows(shard)))
        before = {one.path for one in run.storage.list("tables")}
        assert not run.record(shard, compute(run.rows(shard)))
        assert {one.path for one in run.storage.list("tables")} == before

    assert run_toy(root, IMAGES, InlinePool(twice)).counts.input == 10


def test_counts_that_do_not_add_up_fail_the_run(root: str) -> None:
    def forget_one(run: LakeRun, shard: str) -> None:
        whole = compute(run.rows(shard))
        run.record(shard, ShardResult(whole.tables, done=whole.done - 1, rejected=whole.rejected))

    with pytest.raises(CountsMismatch, match="6 outcomes of 10 inputs"):
        run_toy(root, IMAGES, InlinePool(forget_one))
    assert sum(map(len, contents(root).values())) == 0


def test_a_missing_file_stops_the_commit(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check = committing.check_files
    lost: list[str] = []

    def lose_one(run, receipts):  # type: ignore[no-untyped-def]
        if not lost:
            lost.append(run.id)
            run.storage.delete(receipts[1].files["predictions"][0].path)
        check(run, receipts)

    monkeypatch.setattr(committing, "check_files", lose_one)
    with pytest.raises(RunError, match="missing or cut short.*the shard is computed anew"):
        run_toy(root, IMAGES)
    assert sum(map(len, contents(root).values())) == 0
    computed: list[str] = []
    again = run_toy(root, IMAGES, InlinePool(lambda run, shard: computed.append(shard)))
    assert (again.run_id, computed) == (lost[0], ["00001"])
    assert len(contents(root)["predictions"]) == 8


def test_a_file_lost_amid_the_commit_makes_the_next_run_plan_anew(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table that took the run's files takes none of a second attempt."""
    append = commit._append

    def crash_at_metrics(handle, table, files, transactions):  # type: ignore[no-untyped-def]
        if table == "metrics":
            raise Crash
        append(handle, table, files, transactions)

    with monkeypatch.context() as patch:
        patch.setattr(commit, "_append", crash_at_metrics)
        with pytest.raises(Crash):
            run_toy(root, IMAGES)
    storage = open_storage(root)
    storage.delete(next(one.path for one in storage.list("tables/metrics") if "_log" not in one.path
                        and one.path.endswith(".parquet")))  # fmt: skip
    with pytest.raises(RunError, match="plans anew"):
        run_toy(root, IMAGES)
    assert run_toy(root, IMAGES).status == "published"
    assert {one.state for one in list_runs(storage)} == {"abandoned", "published"}
    assert len(contents(root)["predictions"]) == 8
    assert len(contents(root)["metrics"]) == 1


def test_a_mark_whose_run_was_removed_is_passed_over(root: str) -> None:
    def crash(run: LakeRun, shard: str) -> None:
        raise Crash

    with pytest.raises(Crash):
        run_toy(root, IMAGES, InlinePool(crash))
    storage = open_storage(root)
    for entry in list(storage.list("_runs")):
        storage.delete(entry.path)
    assert list_runs(storage) == []
    assert run_toy(root, IMAGES).status == "published"
    assert list(storage.list("_open")) == []


def test_a_put_whose_answer_was_lost_is_our_own(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client puts again, and is refused by what its first attempt put."""
    put_new = Storage.put_new

    def answered_late(storage: Storage, path: str, data: bytes) -> bool:
        put_new(storage, path, data)
        return put_new(storage, path, data)

    def check(run: LakeRun, shard: str) -> None:
        if shard == "00000":
            assert run.halve(shard)
        else:
            assert run.record(shard, compute(run.rows(shard)))
            assert not run.record(shard, compute(run.rows(shard)))

    LakeStore.open(root, create=True)
    monkeypatch.setattr(Storage, "put_new", answered_late)
    assert run_toy(root, IMAGES, InlinePool(check)).status == "published"
    assert len(contents(root)["predictions"]) == 8


def test_seconds_of_processors_add_up_to_the_cost(root: str) -> None:
    def timed(run: LakeRun, shard: str) -> None:
        assert run.record(shard, compute(run.rows(shard)), Cost(cpu_s=0.25, gpu_s=0.5))

    report = run_toy(root, IMAGES, InlinePool(timed))
    (row,) = LakeStore.open(root).query("SELECT cost, facts FROM runs").to_pylist()
    assert json.loads(row["cost"]) == report.cost
    assert report.cost == {
        "cpu_s": 1.0,
        "gpu_s": 2.0,
        "cpu_s_per_thousand": 100.0,
        "gpu_s_per_thousand": 200.0,
    }
    assert json.loads(row["facts"]) == {"good": 8}


def test_a_cost_that_nobody_measured_is_none(root: str) -> None:
    assert run_toy(root, IMAGES, InlinePool()).cost == {}


def test_checkpoints_stay_until_the_run_is_named(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep(run: LakeRun, shard: str) -> None:
        run.storage.put(f"_runs/{run.id}/train/checkpoint_1/progress.pt", b"weights")

    append, kept = commit._append, []

    def look(handle, table, files, transactions):  # type: ignore[no-untyped-def]
        kept.append(any("/train/" in one.path for one in open_storage(root).list("_runs")))
        append(handle, table, files, transactions)

    monkeypatch.setattr(commit, "_append", look)
    run_toy(root, IMAGES, InlinePool(keep))
    assert kept == [True] * 4
    left = {one.path.split("/")[2] for one in open_storage(root).list("_runs")}
    assert left == {"plan.parquet", "shards"}
