"""Balanced subsets of a split through the lake, and what a spec may ask for."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

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
    quality = {"dataset": DATASET, "recipe": "r", "kept": True}
    found = [
        quality | {"image_id": image_id(n), "phash": f"{n * 0x9E3779B97F4A7C15 % 2**64:016x}"}
        for n in numbers
    ]
    images = [image(n, labels[n], **changes) for n in numbers]
    seed(store, {"images": images, "quality": found})


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    lake = LakeStore.open(str(tmp_path / "lake"), create=True)
    catalogue(lake, range(150), split="train")
    catalogue(lake, range(150, 210), split="test")
    return lake


def sizes(store: LakeStore) -> Counter[Any]:
    rows = store.query(
        "SELECT part, label FROM (SELECT * FROM splits QUALIFY row_number() OVER "
        "(PARTITION BY image_id ORDER BY run_id DESC) = 1) JOIN current_images USING (image_id) "
        "WHERE part IS NOT NULL"
    )
    return Counter((row["part"], row["label"]) for row in rows.to_pylist())


def exactly(**wanted: int) -> dict[Any, int]:
    return {(part, label): n for part, n in wanted.items() for label in ("ill", "well")}


def test_a_subset_is_written_grows_and_shrinks(store: LakeStore) -> None:
    wanted = {"train": 30, "val": 5, "test": 10}
    report = run(store, spec(per_class=wanted))
    assert (report.status, report.counts.done) == ("published", 210)
    assert sizes(store) == exactly(**wanted)
    assert run(store, spec(per_class=wanted)).status == "up_to_date"
    catalogue(store, range(210, 260))
    run(store, spec(per_class=wanted))
    assert store.query("SELECT count(*) AS n FROM splits")["n"].to_pylist() == [90]
    run(store, spec(per_class={"train": 20, "val": 5, "test": 10}))
    assert sizes(store) == exactly(train=20, val=5, test=10)
    run(store, spec())
    assert sum(sizes(store).values()) == 260


def test_a_subset_of_the_given_split_with_val_out_of_train(store: LakeStore) -> None:
    wanted = {"train": 30, "val": 8, "test": 20}
    run(store, spec(mode="given", val_share=0.25, per_class=wanted))
    assert sizes(store) == exactly(**wanted)
    rows = store.query("SELECT part, image_id FROM splits").to_pylist()
    learned = {int(one["image_id"], 16) for one in rows if one["part"] != "test"}
    assert (
        max(learned) < 150 <= min(int(one["image_id"], 16) for one in rows if one["part"] == "test")
    )


def test_too_few_images_are_refused_before_a_run_begins(store: LakeStore) -> None:
    with pytest.raises(SplitError, match=r"20 of 21 images of ill in test\. Ask for fewer"):
        split.run(spec(mode="given", per_class={"test": 21}), InlinePool(), store)
    assert store.query("SELECT * FROM runs WHERE kind = 'split'").num_rows == 0


def test_what_is_not_asked_for_changes_no_identity(store: LakeStore) -> None:
    assert split.identity(spec()).keys().isdisjoint({"per_class", "val_share"})
    run(store, spec(mode="given"))
    assert run(store, spec(mode="given")).status == "up_to_date"
    assert run(store, spec(mode="given", val_share=0.2)).status == "published"
    assert sizes(store)["val", "well"] == pytest.approx(20, abs=2)


def test_specs_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValidationError, match="val_share is for mode given"):
        spec(val_share=0.1)
    with pytest.raises(ValidationError, match="needs a number for train, val or test"):
        spec(per_class={})
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        spec(per_class={"train": 0})
