"""Marks of bundles: appended, seen at once, and of one version each."""

from pathlib import Path

import pytest

from cluster.lake.decisions import list_runs
from cluster.lake.marking import mark_nightly, marked_bundles
from cluster.lake.store import LakeStore
from jobs.bundles import model_row
from schemas.errors import BundleError, LeaseHeld, UsageError
from tests.jobs.seeding import bundle_config, image_id, seed

ONE, TWO = "00112233aabbccdd", "ffeeddccbbaa9988"


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """Two versions of a bundle, scored by both."""
    lake = LakeStore.open(str(tmp_path / "lake"), create=True)
    for version, model_id in ((1, ONE), (2, TWO)):
        config = bundle_config("lungs", model_id)
        seed(lake, {"models": [model_row(config, version, nightly=False)]})
    scored = [
        {"image_id": image_id(1), "model_id": one, "scores": [0.3, 0.7], "score": 0.7}
        for one in (ONE, TWO)
    ]
    seed(lake, {"predictions": scored})
    return lake


def nightly(store: LakeStore) -> list[tuple[int, bool]]:
    rows = store.query("SELECT version, nightly FROM current_models ORDER BY version").to_pylist()
    return [(row["version"], row["nightly"]) for row in rows]


def marked(store: LakeStore) -> list[tuple[str, int]]:
    return [
        (row["name"], row["version"]) for rows in marked_bundles(store).values() for row in rows
    ]


def test_a_mark_is_set_and_taken_away(store: LakeStore) -> None:
    assert mark_nightly(store, "lungs@1", nightly=True)["nightly"] is True
    assert nightly(store) == [(1, True), (2, False)]
    mark_nightly(store, "lungs", nightly=True)
    assert marked(store) == [("lungs", 2), ("lungs", 1)]
    mark_nightly(store, "lungs@1", nightly=False)
    assert marked(store) == [("lungs", 2)]


def test_a_mark_changes_nothing_else_of_a_bundle(store: LakeStore) -> None:
    before = dict(store.bundle("lungs@1"))
    after = dict(mark_nightly(store, "lungs@1", nightly=True))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"nightly", "run_id"}
    assert store.bundle("lungs")["version"] == 2
    seen = store.query("SELECT version, label FROM latest_predictions").to_pylist()
    assert seen == [{"version": 2, "label": "ill"}]


def test_what_is_marked_already_leaves_no_run(store: LakeStore) -> None:
    mark_nightly(store, "lungs@2", nightly=True)
    runs = len(list_runs(store.storage))
    mark_nightly(store, "lungs@2", nightly=True)
    assert len(list_runs(store.storage)) == runs


def test_a_mark_that_was_cut_off_does_not_stand_in_the_way(
    store: LakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LakeStore, "commit", cut)
        with pytest.raises(KeyboardInterrupt):
            mark_nightly(store, "lungs@2", nightly=True)
    assert marked(store) == []
    mark_nightly(store, "lungs@1", nightly=True)
    assert marked(store) == [("lungs", 1)]
    assert {one.state for one in list_runs(store.storage) if one.kind == "mark"} == {
        "published", "abandoned",
    }  # fmt: skip


def test_two_do_not_mark_at_once(store: LakeStore) -> None:
    with store.lease(("mark", "lungs")), pytest.raises(LeaseHeld):
        mark_nightly(LakeStore.open(store.root), "lungs@1", nightly=True)


def test_what_can_not_be_marked(store: LakeStore) -> None:
    with pytest.raises(BundleError, match=r"No such bundle.*lungs@7"):
        mark_nightly(store, "lungs@7", nightly=True)
    seed(store, {"models": [model_row(bundle_config("nightly", "1" * 16), 1, nightly=False)]})
    with pytest.raises(UsageError, match="stands for all marked ones"):
        mark_nightly(store, "nightly", nightly=True)
