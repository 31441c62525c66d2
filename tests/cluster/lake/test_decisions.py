"""Held runs: out of sight until somebody decides, and decided once."""

from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cluster.lake import commit, committing, decisions
from cluster.lake.decisions import discard, list_runs, publish
from cluster.lake.runs import LakeRun
from cluster.lake.store import LakeStore
from cluster.storage import Storage, open_storage
from schemas.errors import CommitConflict, UsageError
from schemas.reasons import RunState
from tests.cluster.lake.toy import (
    KEY,
    SPEC,
    InlinePool,
    contents,
    ids,
    plan_toy,
)

IMAGES = ids(10)


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "lake")


def _hold_back(root: str) -> str:
    """A run as the publish gate leaves it: committed, and held."""
    store = LakeStore.open(root, create=True)
    with store.lease(KEY):
        run = store.begin(plan_toy(store, IMAGES), {})
        InlinePool().run_shards(run, SPEC.execution)
        lake_run = LakeRun(store.storage, run.id, resumed=False)
        lease, _ = store._leases[KEY]
        committing.commit_run(lake_run, lease, state=RunState.HELD, seconds={})
    return run.id


def test_a_held_run_stays_out_of_sight_until_it_is_published(root: str) -> None:
    run_id = _hold_back(root)
    store = LakeStore.open(root)
    assert contents(root)["predictions"] == []
    assert sorted(store.held_images(KEY).to_pylist()) == IMAGES
    publish(store.storage, run_id)
    assert len(contents(root)["predictions"]) == 8
    assert store.held_images(KEY).to_pylist() == []
    with pytest.raises(UsageError, match="not held"):
        publish(store.storage, run_id)


def test_a_discarded_run_leaves_rejects(root: str) -> None:
    run_id = _hold_back(root)
    store = LakeStore.open(root)
    discard(store.storage, run_id)
    seen = contents(root)
    assert seen["predictions"] == []
    assert [row["image_id"] for row in seen["rejects"]] == IMAGES
    assert {row["reason"] for row in seen["rejects"]} == {"gate_discarded"}
    with pytest.raises(UsageError, match="discarded"):
        discard(store.storage, run_id)


def test_what_was_decided_before_the_lease_is_respected(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = _hold_back(root)
    storage = open_storage(root)
    hold = decisions.hold

    @contextmanager
    def published_first(*args):  # type: ignore[no-untyped-def]
        with monkeypatch.context() as patch:
            patch.setattr(decisions, "hold", hold)
            publish(storage, run_id)
        with hold(*args):
            yield

    monkeypatch.setattr(decisions, "hold", published_first)
    with pytest.raises(UsageError, match="not held.*published"):
        discard(storage, run_id)
    seen = contents(root)
    assert len(seen["predictions"]) == 8
    assert {row["reason"] for row in seen["rejects"]} == {"corrupt"}


def test_states_of_one_second_keep_their_order(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 tells the time in whole seconds."""
    second = datetime(2026, 11, 21, 8, tzinfo=UTC)
    monkeypatch.setattr(Storage, "now", lambda storage: second)
    run_id = _hold_back(root)
    publish(open_storage(root), run_id)
    assert len(contents(root)["predictions"]) == 8
    rows = LakeStore.open(root).query("SELECT state, recorded_at FROM runs ORDER BY recorded_at")
    assert [(row["state"], row["recorded_at"].microsecond) for row in rows.to_pylist()] == [
        ("held", 0),
        ("published", 1),
    ]


def test_the_figures_of_the_last_state_are_listed(root: str) -> None:
    run_id = _hold_back(root)
    discard(open_storage(root), run_id)
    (listed,) = [one for one in list_runs(open_storage(root)) if one.run_id == run_id]
    assert (listed.state, listed.rejected) == ("discarded", 10)


def test_a_decision_whose_answer_is_lost_counts_as_done(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deltalake.exceptions import CommitFailedError

    run_id = _hold_back(root)
    append = commit._append

    def lose_the_answer(handle, table, files, transactions):  # type: ignore[no-untyped-def]
        append(handle, table, files, transactions)
        raise CommitFailedError("connection reset")

    def fail(handle, table, files, transactions):  # type: ignore[no-untyped-def]
        raise CommitFailedError("connection reset")

    with monkeypatch.context() as patch:
        patch.setattr(commit, "_append", fail)
        with pytest.raises(CommitConflict, match="connection reset"):
            publish(open_storage(root), run_id)
    assert contents(root)["predictions"] == []
    monkeypatch.setattr(commit, "_append", lose_the_answer)
    publish(open_storage(root), run_id)
    assert len(contents(root)["predictions"]) == 8


def test_a_discard_leaves_work_on_its_way_alone(root: str) -> None:
    """A driver died in a later run of the same model; its successor goes on after the discard."""
    run_id = _hold_back(root)
    store = LakeStore.open(root)
    later = plan_toy(store, ids(10, 10))
    with store.lease(KEY):
        begun = store.begin(later, {})
    discard(store.storage, run_id)
    store = LakeStore.open(root)
    with store.lease(KEY):
        run = store.unfinished(KEY, later.fingerprint)
        assert run is not None
        assert run.id == begun.id
        InlinePool().run_shards(run, SPEC.execution)
        assert store.commit(run, {}).status == "published"
    seen = contents(root)
    assert len(seen["predictions"]) == 8
    assert len(seen["rejects"]) == len(IMAGES) + 2


def test_a_discard_is_no_work_of_the_model(root: str) -> None:
    """The run that holds the rejects has a kind, a key and a fingerprint of its own."""
    run_id = _hold_back(root)
    store = LakeStore.open(root)
    (held,) = store.runs_of(KEY)
    discard(store.storage, run_id)
    assert list(store.runs_of(KEY)) == []
    (own,) = store.runs_of(("discard", run_id))
    assert (own["run_id"], own["kind"], own["state"]) == (
        f"{run_id}-discarded", "discard", "published",
    )  # fmt: skip
    assert own["fingerprint"] != held["fingerprint"]
