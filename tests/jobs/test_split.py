"""Splitting from plan to published rows, in this process."""

from pathlib import Path
from typing import Any

import pytest

from cluster.lake.store import LakeStore
from jobs import split
from schemas.errors import SplitError
from schemas.specs.split import SplitSpec
from tests.jobs.seeding import DATASET, InlinePool, image, image_id, seed
from workers import splitting


def spec(**changes: Any) -> SplitSpec:
    return SplitSpec.model_validate({"dataset": DATASET, "split_name": "s"} | changes)


def run(store: LakeStore, job: SplitSpec) -> Any:
    plan = split.plan(job, store)
    return split.run(job, InlinePool(splitting.load(plan.params)), store)


def catalogue(store: LakeStore, numbers: range, **changes: Any) -> None:
    labels = {number: "ill" if number % 3 == 0 else "well" for number in numbers}
    phash = {number: (number * 0x9E3779B97F4A7C15) % 2**64 for number in numbers}
    seed(
        store,
        {
            "images": [image(n, labels[n], **changes) for n in numbers],
            "quality": [
                {
                    "image_id": image_id(n),
                    "dataset": DATASET,
                    "recipe": "r",
                    "phash": f"{phash[n]:016x}",
                    "kept": n % 10 != 9,
                }
                for n in numbers
            ],
        },
    )


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    lake = LakeStore.open(str(tmp_path / "lake"), create=True)
    catalogue(lake, range(200))
    return lake


def places(store: LakeStore) -> dict[str, dict[str, Any]]:
    rows = store.query(
        "SELECT * FROM splits WHERE split_name = 's' "
        "QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY run_id DESC) = 1"
    )
    return {row["image_id"]: row for row in rows.to_pylist() if row["part"] is not None}


def test_kept_images_are_split_by_patient(store: LakeStore) -> None:
    report = run(store, spec())
    assert (report.status, report.counts.done) == ("published", 200)
    found = places(store)
    assert set(found) == {image_id(n) for n in range(200) if n % 10 != 9}
    for number in range(0, 200, 2):
        if number % 10 != 8:
            assert found[image_id(number)]["part"] == found[image_id(number + 1)]["part"]
    assert report.facts["images in train"] == pytest.approx(126, abs=3)
    audit = store.query("SELECT * FROM metrics WHERE study = 's'").to_pylist()
    assert {row["part"] for row in audit} == {"train|val", "train|test", "val|test"}
    assert {row["value"] for row in audit} == {0}


@pytest.mark.parametrize("changes", [{"folds": 4}, {"max_group_share": 0.5}, {"split_distance": 3}])
def test_rules_that_give_no_parts_move_nobody(store: LakeStore, changes: dict[str, Any]) -> None:
    run(store, spec())
    before = {name: row["part"] for name, row in places(store).items()}
    catalogue(store, range(200, 240))
    run(store, spec(**changes))
    after = {name: row["part"] for name, row in places(store).items()}
    assert len(after) == 216
    assert {name: after[name] for name in before} == before


def test_folds_stay_as_long_as_there_are_as_many(store: LakeStore) -> None:
    run(store, spec(folds=4))
    before = {name: row["fold"] for name, row in places(store).items()}
    catalogue(store, range(200, 240))
    run(store, spec(folds=4, max_group_share=0.5))
    after = {name: row["fold"] for name, row in places(store).items()}
    assert {name: after[name] for name in before} == before
    run(store, spec(folds=3))
    assert {row["fold"] for row in places(store).values()} == {0, 1, 2, None}


def test_a_split_of_that_name_of_another_data_set_is_another_split(store: LakeStore) -> None:
    run(store, spec())
    mine = places(store)
    catalogue(store, range(100), dataset="other")
    quality = {"dataset": "other", "recipe": "r", "kept": True}
    hashes = [f"{(n * 0x9E3779B97F4A7C15) % 2**64:016x}" for n in range(100)]
    found = [quality | {"image_id": image_id(n), "phash": hashes[n]} for n in range(100)]
    seed(store, {"quality": found})
    other = SplitSpec.model_validate({"dataset": "other", "split_name": "s", "seed": 9})
    run(store, other)
    rows = store.query(
        "SELECT image_id, part FROM splits WHERE dataset = 'chests' AND part IS NOT NULL"
    )
    assert {row["image_id"]: row["part"] for row in rows.to_pylist()} == {
        name: row["part"] for name, row in mine.items()
    }
    assert split.plan(spec(), store).inputs.num_rows == 0


def test_a_split_that_stands_is_up_to_date(store: LakeStore) -> None:
    run(store, spec())
    again = split.plan(spec(), store)
    assert (again.inputs.num_rows, again.counts.up_to_date) == (0, 200)
    assert run(store, spec()).status == "up_to_date"


def test_new_images_are_added_and_the_others_stay(store: LakeStore) -> None:
    run(store, spec())
    before = places(store)
    catalogue(store, range(200, 300))
    report = run(store, spec())
    after = places(store)
    assert len(after) == 270
    assert {key: after[key]["part"] for key in before} == {
        key: one["part"] for key, one in before.items()
    }
    latest = store.query(
        "SELECT count(*) AS n FROM splits WHERE run_id = $run", {"run": report.run_id}
    )
    assert latest["n"][0].as_py() == 90


def test_corrected_patients_are_split_again(store: LakeStore) -> None:
    run(store, spec())
    found = places(store)
    one = next(n for n in range(0, 200, 2) if found[image_id(n)]["part"] == "train")
    two = next(n for n in range(0, 200, 2) if found[image_id(n)]["part"] == "test")
    catalogue(store, range(one, one + 1), patient_id="same")
    catalogue(store, range(two, two + 1), patient_id="same")
    run(store, spec())
    after = places(store)
    assert after[image_id(one)]["part"] == after[image_id(two)]["part"] == "train"


def test_other_rules_make_another_split_of_that_name(store: LakeStore) -> None:
    run(store, spec())
    before = places(store)
    run(store, spec(seed=9))
    after = places(store)
    assert set(before) == set(after)
    assert sum(before[key]["part"] != after[key]["part"] for key in before) > 20
    assert split.plan(spec(seed=9), store).inputs.num_rows == 0
    assert split.plan(spec(), store).inputs.num_rows == 200


def test_a_given_split_with_leaks(tmp_path: Path) -> None:
    store = LakeStore.open(str(tmp_path / "given"), create=True)
    catalogue(store, range(61), split="train")
    catalogue(store, range(61, 100), split="test")
    report = run(store, spec(mode="given"))
    # Patients are pairs of images: 60 is in train, 61 in test.
    assert report.facts["patients in train and test as given"] == 1
    assert report.facts["left out because they leak"] == 1
    assert image_id(60) not in places(store)
    row = store.query(
        "SELECT value, n FROM metrics WHERE category = 'given' AND metric = 'leak_patients'"
    )
    assert row.to_pylist() == [{"value": 1.0, "n": 39}]


def test_nothing_is_begun_where_no_split_can_be_made(tmp_path: Path) -> None:
    store = LakeStore.open(str(tmp_path / "empty"), create=True)
    seed(store, {"images": [image(99, "well")]})  # not cleaned yet
    with pytest.raises(SplitError, match="no kept image"):
        split.run(spec(), InlinePool(), store)
    catalogue(store, range(60), patient_id="one")
    with pytest.raises(SplitError, match="54 of 54 images"):
        split.run(spec(), InlinePool(), store)
    assert store.query("SELECT * FROM runs WHERE kind = 'split'").num_rows == 0
    report = run(store, spec(max_group_share=1.0))
    assert report.facts["groups"] == 1


LAST_LEAKS = """
SELECT leaks.* FROM leaks
JOIN (SELECT max(run_id) AS run_id FROM runs WHERE kind = 'split' GROUP BY key) USING (run_id)
ORDER BY source, kind, first_part, second_part, image_id
"""


def test_the_lake_names_the_leaks_of_the_last_audit(tmp_path: Path) -> None:
    store = LakeStore.open(str(tmp_path / "given"), create=True)
    catalogue(store, range(61), split="train")
    catalogue(store, range(61, 100), split="test")
    first = run(store, spec(mode="given"))
    (leak,) = store.query(LAST_LEAKS).to_pylist()
    assert leak == {
        "split_name": "s",
        "dataset": DATASET,
        "source": "given",
        "kind": "patient",
        "first_part": "train",
        "second_part": "test",
        "image_id": image_id(61),
        "other_image_id": image_id(60),
        "patient_id": "p30",
        "distance": leak["distance"],
        "run_id": first.run_id,
    }
    hashes = [(n * 0x9E3779B97F4A7C15) % 2**64 for n in (60, 61)]
    assert leak["distance"] == (hashes[0] ^ hashes[1]).bit_count()
    assert run(store, spec(mode="given")).status == "up_to_date"
    assert store.query("SELECT count(*) AS n FROM leaks")["n"].to_pylist() == [1]
    # The image turns out to be another patient's: the next audit names nothing.
    catalogue(store, range(61, 62), split="test", patient_id="another")
    assert run(store, spec(mode="given")).status == "published"
    assert store.query(LAST_LEAKS).num_rows == 0
    assert store.query("SELECT count(*) AS n FROM leaks")["n"].to_pylist() == [1]


def test_a_random_split_is_audited_and_published(store: LakeStore) -> None:
    report = run(store, spec(mode="random"))
    assert report.status == "published"
    found = places(store)
    torn = {
        n // 2
        for n in range(0, 200, 2)
        if n % 10 != 8 and found[image_id(n)]["part"] != found[image_id(n + 1)]["part"]
    }
    assert len(torn) > 20
    named = store.query(LAST_LEAKS).to_pylist()
    assert {one["patient_id"] for one in named} == {f"p{number}" for number in torn}
    counted = [value for fact, value in report.facts.items() if fact.startswith("patients in")]
    assert sum(counted) == len(torn)
    assert {one["source"] for one in named} == {"made"}
    assert found[image_id(0)]["group_id"] == found[image_id(1)]["group_id"] == image_id(0)
