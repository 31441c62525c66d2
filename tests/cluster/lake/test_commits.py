"""Drivers that overtake each other at the commit: one wins, and nobody is told a lie."""

from pathlib import Path

import pytest

from cluster.lake import commit, committing
from cluster.lake.commit import COMMIT_ORDER, commit_files, open_table
from cluster.lake.decisions import list_runs
from cluster.lake.runs import LakeRun
from cluster.lake.store import LakeStore
from schemas.errors import CommitConflict, LeaseLost
from schemas.tables import TABLES
from tests.cluster.lake.toy import (
    KEY,
    SPEC,
    InlinePool,
    contents,
    ids,
    plan_toy,
    run_toy,
)

IMAGES = ids(10)


def test_every_table_has_a_place_in_the_order_of_commits() -> None:
    assert sorted((*COMMIT_ORDER, "runs")) == sorted(TABLES)


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "lake")


def test_two_drivers_on_one_run_commit_it_once(root: str) -> None:
    """A driver that lost its lease unnoticed commits beside its successor."""
    store = LakeStore.open(root, create=True)
    with store.lease(KEY):
        run = store.begin(plan_toy(store, IMAGES), {})
        InlinePool().run_shards(run, SPEC.execution)
        InlinePool().finish(run)
        first = store.commit(run, {})
        second = store.commit(run, {})
    assert first.counts == second.counts
    assert len(contents(root)["predictions"]) == 8
    assert len(store.query("SELECT * FROM runs")) == 1


def test_a_plan_made_before_another_commit_is_refused(root: str) -> None:
    store, other = LakeStore.open(root, create=True), LakeStore.open(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cluster.lake.leases.LAPSE_S", -1.0)
        with store.lease(KEY):
            stale = store.begin(plan_toy(store, IMAGES), {})
            InlinePool().run_shards(stale, SPEC.execution)
            with other.lease(KEY):  # takes over, and does not find the run to go on with
                fresh = other.begin(plan_toy(other, IMAGES), {})
                InlinePool().run_shards(fresh, SPEC.execution)
                other.commit(fresh, {})
            patch.setattr("cluster.lake.leases.Lease.check", lambda lease: None)
            with pytest.raises(CommitConflict, match="run the job again|Run the job again"):
                store.commit(stale, {})
    assert len(contents(root)["predictions"]) == 8
    # The stale plan would be refused for ever; the next run makes one of its own.
    report = run_toy(root, ids(13))
    assert (report.status, report.counts.done) == ("published", 3)
    states = {one.run_id: one.state for one in list_runs(store.storage)}
    assert states[stale.id] == "abandoned"
    assert states[fresh.id] == "published"


def test_a_run_that_was_abandoned_meanwhile_is_not_called_published(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The successor decides after the last look at the lease, or before it."""
    store = LakeStore.open(root, create=True)
    with store.lease(KEY):
        run = store.begin(plan_toy(store, IMAGES), {})
        InlinePool().run_shards(run, SPEC.execution)
        InlinePool().finish(run)
        append, abandoned = commit._append, []

        def overtake(handle, table, files, transactions):  # type: ignore[no-untyped-def]
            if table == "runs" and not abandoned:
                abandoned.append(run.id)
                committing.abandon(LakeRun(store.storage, run.id, resumed=True))
            append(handle, table, files, transactions)

        monkeypatch.setattr(commit, "_append", overtake)
        with pytest.raises(LeaseLost, match="got abandoned"):
            store.commit(run, {})
        with pytest.raises(LeaseLost, match="got abandoned"):
            store.commit(run, {})
    assert abandoned == [run.id]
    assert contents(root)["predictions"] == []


def test_the_lease_is_looked_at_right_before_a_run_is_named(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    append = commit._append

    def note_append(handle, table, files, transactions):  # type: ignore[no-untyped-def]
        looks.append(table)
        append(handle, table, files, transactions)

    monkeypatch.setattr(commit, "_append", note_append)
    monkeypatch.setattr("cluster.lake.leases.Lease.check", lambda lease: looks.append("lease"))
    run_toy(root, IMAGES)
    assert looks == ["lease", "rejects", "predictions", "metrics", "lease", "runs"]


def test_a_commit_is_refused_when_another_lands_on_the_same_handle(root: str) -> None:
    """Both read the key's version before either commits; Delta itself refuses the second."""
    store = LakeStore.open(root, create=True)
    with store.lease(KEY):
        run = store.begin(plan_toy(store, IMAGES), {})
        InlinePool().run_shards(run, SPEC.execution)
    files = [file for one in LakeRun(store.storage, run.id, resumed=True).done()
             for file in one.files["predictions"]]  # fmt: skip
    append, storage = commit._append, store.storage

    def overtake(handle, table, added, transactions):  # type: ignore[no-untyped-def]
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(commit, "_append", append)
            commit_files(storage, table, files, run_id="other", key=KEY, planned={})
        append(handle, table, added, transactions)

    with pytest.MonkeyPatch.context() as patch:
        commit.ensure_table(storage, "predictions")
        patch.setattr(commit, "_append", overtake)
        with pytest.raises(CommitConflict):
            commit_files(storage, "predictions", files, run_id=run.id, key=KEY, planned={})
    handle = open_table(storage, "predictions")
    assert handle and handle.transaction_version("run/other") == 1
    assert handle.transaction_version(f"run/{run.id}") is None


def test_a_commit_whose_answer_is_lost_counts_as_done(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deltalake.exceptions import CommitFailedError

    append, lost = commit._append, []

    def lose_the_answer(handle, table, files, transactions):  # type: ignore[no-untyped-def]
        append(handle, table, files, transactions)
        lost.append(table)
        raise CommitFailedError("connection reset")

    monkeypatch.setattr(commit, "_append", lose_the_answer)
    assert run_toy(root, IMAGES).status == "published"
    assert lost == ["rejects", "predictions", "metrics", "runs"]
    assert len(contents(root)["predictions"]) == 8
