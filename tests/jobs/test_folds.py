"""Training and evaluating by the folds of a split: roles, gates, and what the bundle says."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.lake.store import LakeStore
from jobs import evaluate, split, train
from jobs.bundles import model_row
from schemas.errors import LeakError, SplitError
from schemas.specs.evaluate import EvaluateSpec
from schemas.specs.split import SplitSpec
from schemas.specs.train import TrainSpec
from tests.jobs.seeding import (
    DATASET,
    SPLIT,
    InlinePool,
    bundle_config,
    image,
    image_id,
    open_lake,
    place,
    seed,
)
from workers import splitting
from workers.metrics import evaluating
from workers.models.classifier.card import model_card

FOLDS = 4
MODEL_ID = "00112233aabbccdd"


def _train(**changes: Any) -> TrainSpec:
    values = {"dataset": DATASET, "split": SPLIT, "model": "lungs"}
    return TrainSpec.model_validate(values | changes)


def _evaluate(**changes: Any) -> EvaluateSpec:
    values = {"dataset": DATASET, "split": SPLIT, "model": "lungs", "bootstrap": 0}
    return EvaluateSpec.model_validate(values | changes)


def fold_of(number: int) -> int:
    """Four images in a row, of two patients and both labels, are of one fold."""
    return number // 4 % FOLDS


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """Forty images: 32 in four folds of eight, 8 in test."""
    lake = open_lake(tmp_path)
    folded = [
        place(n, "train" if n < 24 else "val", fold=fold_of(n)) if n < 32 else place(n, "test")
        for n in range(40)
    ]
    seed(lake, {"splits": folded})
    return lake


def roles(store: LakeStore, **changes: Any) -> dict[str, set[int]]:
    rows = train.plan(_train(**changes), store).inputs
    pairs = zip(rows["part"].to_pylist(), rows["image_id"].to_pylist(), strict=True)
    found: dict[str, set[int]] = {"train": set(), "val": set()}
    for part, name in pairs:
        found[part].add(int(name, 16))
    return found


@pytest.mark.parametrize(("fold", "inner", "validated"), [(0, None, 1), (3, None, 0), (1, 3, 3)])
def test_a_fold_is_held_out_and_another_validated(
    store: LakeStore, fold: int, inner: int | None, validated: int
) -> None:
    found = roles(store, fold=fold, inner_fold=inner)
    assert found["val"] == {n for n in range(32) if fold_of(n) == validated}
    assert found["train"] == {n for n in range(32) if fold_of(n) not in {fold, validated}}
    assert len(found["train"]) == 16


def test_without_a_fold_parts_are_taken(store: LakeStore) -> None:
    assert roles(store) == {"train": set(range(24)), "val": set(range(24, 32))}


def test_folds_enter_the_identity_the_bundle_and_its_card(store: LakeStore) -> None:
    plans = {
        (fold, inner): train.plan(_train(fold=fold, inner_fold=inner), store)
        for fold, inner in ((None, None), (0, None), (0, 1), (0, 2), (2, 0))
    }
    prints = {key: one.fingerprint for key, one in plans.items()}
    assert prints[0, None] == prints[0, 1], "the default is the next fold"
    assert len(set(prints.values())) == 4
    assert plans[None, None].identity.keys() & {"fold", "inner_fold"} == set()
    data = plans[0, None].params["bundle"]["data"]
    assert (data["fold"], data["inner_fold"]) == (0, 1)
    card = model_card(bundle_config("lungs", data=data))
    assert "- fold: 0\n- inner fold: 1\n" in card
    assert "Fold 0 of the split was held out" in card
    assert "Fold 1 was validated on" in card
    plain = bundle_config("lungs", data=plans[None, None].params["bundle"]["data"])
    assert "held out" not in model_card(plain)


def test_a_fold_that_is_not_there_is_refused(store: LakeStore) -> None:
    with pytest.raises(SplitError, match=r"no such fold.*got 4\. Its folds are 0 to 3"):
        train.plan(_train(fold=4), store)
    with pytest.raises(SplitError, match="no such fold.*got 9"):
        train.plan(_train(fold=0, inner_fold=9), store)
    with pytest.raises(SplitError, match="has no folds.*got fold 0.*`folds: 5`"):
        train.plan(_train(fold=0, split="another"), store)
    seed(store, {"splits": [place(n, "train", fold=n // 4 % 2) for n in range(32)]})
    with pytest.raises(SplitError, match="takes three.*got 2 folds"):
        train.plan(_train(fold=0), store)


def test_inner_folds_lie_within_the_others() -> None:
    with pytest.raises(ValidationError, match="another fold than the one held out"):
        _train(fold=2, inner_fold=2)
    with pytest.raises(ValidationError, match="inner_fold needs fold"):
        _train(inner_fold=1)


def test_the_gate_looks_at_roles_and_not_at_parts(store: LakeStore) -> None:
    # Patient p4 (8 and 9) on folds 2 and 3, both of part train.
    seed(store, {"splits": [place(9, "train", fold=3)]})
    train.plan(_train(), store)
    train.plan(_train(fold=0, inner_fold=1), store)
    for outer, inner in ((3, None), (0, 3), (2, 0)):
        with pytest.raises(LeakError, match="1 patients, 1 duplicate groups"):
            train.plan(_train(fold=outer, inner_fold=inner), store)
    allowed = train.plan(_train(fold=3, allow_leaks=True), store)
    assert allowed.params["bundle"]["data"]["leaks_allowed"]["patients"] == 1


def test_a_held_out_fold_counts_as_seen_by_nobody(store: LakeStore) -> None:
    # An image of the test part shares its patient with one of fold 0.
    seed(store, {"images": [image(36, "well", patient_id="p0", uri="archive/0036.png")]})
    with pytest.raises(LeakError, match="1 patients"):
        train.plan(_train(fold=1), store)
    train.plan(_train(fold=0), store)


def _scored(store: LakeStore, data: dict[str, Any]) -> None:
    config = bundle_config("lungs", data=data)
    predictions = [
        {
            "image_id": image_id(n),
            "model_id": MODEL_ID,
            "scores": [n / 40, 1 - n / 40],
            "score": n / 40,
        }
        for n in range(40)
    ]
    seed(
        store,
        {
            "models": [model_row(config, 1, nightly=False)],
            "predictions": predictions,
        },
    )


def test_a_held_out_fold_is_reported_as_test(store: LakeStore) -> None:
    _scored(store, {"dataset": DATASET, "split": SPLIT, "fold": 2, "inner_fold": 3})
    job = _evaluate(fold=2)
    plan = evaluate.plan(job, store)
    assert {int(name, 16) for name in plan.inputs["image_id"].to_pylist()} == {
        n for n in range(32) if fold_of(n) == 2
    }
    pool = InlinePool(evaluating.load(plan.params))
    assert evaluate.run(job, pool, store).status == "published"
    rows = store.query("SELECT DISTINCT part, fold, n FROM metrics WHERE metric = 'auc'")
    assert rows.to_pylist() == [{"part": "test", "fold": 2, "n": 8}]
    assert evaluate.run(job, pool, store).status == "up_to_date"
    # The split's own test part was not trained on either, and stands beside it.
    rest = _evaluate(parts=["test"])
    plan = evaluate.plan(rest, store)
    assert plan.inputs.num_rows == 8
    evaluate.run(rest, InlinePool(evaluating.load(plan.params)), store)
    rows = store.query("SELECT DISTINCT part, fold FROM metrics ORDER BY fold NULLS LAST")
    assert rows["fold"].to_pylist() == [2, None]


@pytest.mark.parametrize(
    ("trained", "asked", "message"),
    [
        ({"fold": 2, "inner_fold": 3}, {"fold": 1}, r"part test .* Evaluate with `fold: 2`"),
        ({"fold": 2, "inner_fold": 3}, {"fold": 3}, r"got 8 of 8 images"),
        ({"fold": 0, "inner_fold": 1}, {}, r"part val of "),
        ({}, {"fold": 1}, r"got 8 of 8 images.* `parts: \[test\]` and the split"),
    ],
)
def test_what_a_model_learned_from_is_not_its_test(
    store: LakeStore, trained: dict[str, Any], asked: dict[str, Any], message: str
) -> None:
    _scored(store, {"dataset": DATASET, "split": SPLIT} | trained)
    with pytest.raises(LeakError, match=message):
        evaluate.plan(_evaluate(**asked), store)


def test_images_count_and_not_the_names_of_splits(store: LakeStore) -> None:
    """A model of this data set is asked about a split that was made anew, and about another one."""
    before = store.query("SELECT max(run_id) AS run_id FROM splits")["run_id"][0].as_py()
    _scored(store, {"dataset": DATASET, "split": SPLIT, "split_run": before})
    assert evaluate.plan(_evaluate(parts=["test"]), store).inputs.num_rows == 8
    turned = [place(n, "test" if n < 8 else "train") for n in range(40)]
    other = [place(n, "test" if n < 3 else "train", split_name="other") for n in range(40)]
    seed(store, {"splits": [*turned, *other]})
    with pytest.raises(LeakError, match=r"part test of .*got 8 of 8 images"):
        evaluate.plan(_evaluate(parts=["test"]), store)
    with pytest.raises(LeakError, match=r"part test of other.*got 3 of 3 images"):
        evaluate.plan(_evaluate(parts=["test"], split="other"), store)


def test_a_model_of_another_data_set_is_evaluated_on_any_fold(store: LakeStore) -> None:
    _scored(store, {"dataset": "elsewhere", "split": SPLIT, "fold": 0})
    assert evaluate.plan(_evaluate(fold=3), store).inputs.num_rows == 8
    with pytest.raises(SplitError, match="no such fold"):
        evaluate.plan(_evaluate(fold=7), store)


def test_a_random_split_is_trained_on_only_by_name(tmp_path: Path) -> None:
    store = LakeStore.open(str(tmp_path / "naive"), create=True)
    # Forty images without patients; 2k and 2k + 1 differ by one bit, others by many.
    hashes = [((n // 2) * 0x9E3779B97F4A7C15) % 2**64 ^ (n % 2) for n in range(40)]
    quality = {"dataset": DATASET, "recipe": "r", "kept": True}
    seed(
        store,
        {
            "images": [
                image(n, "ill" if n % 4 < 2 else "well", patient_id=None) for n in range(40)
            ],
            "quality": [
                {"image_id": image_id(n), "phash": f"{value:016x}"} | quality
                for n, value in enumerate(hashes)
            ],
        },
    )
    for mode in ("random", "make"):
        job = SplitSpec(dataset=DATASET, split_name=mode, mode=mode)  # type: ignore[arg-type]
        split.run(job, InlinePool(splitting.load(split.plan(job, store).params)), store)
    train.plan(_train(split="make"), store)
    naive = _train(split="random")
    with pytest.raises(LeakError, match=r"0 patients, \d+ duplicate groups"):
        train.plan(naive, store)
    plan = train.plan(naive.model_copy(update={"allow_leaks": True}), store)
    torn = store.query(
        "SELECT count(*) AS n FROM (SELECT group_id FROM splits WHERE split_name = 'random' "
        "GROUP BY group_id HAVING count(DISTINCT part) > 1)"
    )
    told = plan.params["bundle"]["data"]["leaks_allowed"]
    assert told == {"patients": 0, "duplicate_groups": torn["n"][0].as_py()}

    pool = InlinePool()
    train.run(_train(split="random", allow_leaks=True), pool, store)
    data = json.loads(store.bundle("lungs")["data"])
    card = model_card(bundle_config("lungs", data=data))
    assert "**The split leaks**" in card
    assert f"duplicate_groups {told['duplicate_groups']}" in card
