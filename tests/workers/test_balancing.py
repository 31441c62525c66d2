"""Subsets of a split with equally many images of each class, and val out of a given train."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schemas.errors import SplitError
from tests.workers.splits import PARAMS, corpus, row, split, table, with_places
from workers import splitting
from workers.balancing import keep_per_class

WANTED = {"train": 120, "val": 20, "test": 40}


def sizes(places: dict[str, dict[str, Any]], rows: list[dict[str, Any]]) -> Counter[Any]:
    label = {one["image_id"]: one["label"] for one in rows}
    return Counter((one["part"], label[key]) for key, one in places.items() if one["part"])


def exactly(wanted: dict[str, int]) -> dict[Any, int]:
    return {(part, label): n for part, n in wanted.items() for label in ("ill", "well")}


def test_as_many_images_of_each_class_as_are_asked_for() -> None:
    rows = corpus(900)
    whole, _ = split(rows)
    some, result = split(rows, per_class=WANTED)
    assert sizes(some, rows) == exactly(WANTED)
    # The parts are those of the whole split: a subset moves nobody.
    assert all(whole[key]["part"] == one["part"] for key, one in some.items())
    assert all(whole[key]["group_id"] == one["group_id"] for key, one in some.items())
    assert result.facts["left out beyond what per_class asks for"] == 900 - 360
    assert result.facts["images in train"] == 240
    audited = {one["part"]: one["n"] for one in result.tables["metrics"].to_pylist()}
    assert audited == {"train|val": 40, "train|test": 80, "val|test": 80}, "of the subset"


def test_parts_without_a_number_keep_all_their_images() -> None:
    rows = corpus(900)
    whole, _ = split(rows)
    some, _ = split(rows, per_class={"train": 50})
    assert sizes(some, rows)["train", "well"] == 50
    for part in ("val", "test"):
        of_part = {key for key, one in whole.items() if one["part"] == part}
        assert {key for key, one in some.items() if one["part"] == part} == of_part


def test_seeds_choose_differently_and_the_order_of_rows_does_not() -> None:
    rows = corpus(900)
    parts = np.zeros(900, np.int64)
    nowhere = np.full(900, -1)

    def chosen(shown: list[dict[str, Any]], seed: int) -> set[str]:
        found = keep_per_class(table(shown), parts, nowhere, {"train": 100}, seed, "s")
        return {one["image_id"] for one, part in zip(shown, found, strict=True) if part == 0}

    assert chosen(rows, 0) == chosen(rows[::-1], 0)
    # Two independent draws of 200 out of 900 share about 300/100 and 600/100 of a class.
    assert 20 < len(chosen(rows, 0) & chosen(rows, 1)) < 90


def test_added_images_displace_none() -> None:
    first, _ = split(corpus(900), per_class=WANTED)
    again, _ = split(with_places(corpus(900), first), per_class=WANTED)
    assert again == {}, "a subset that stands writes nothing"
    more, _ = split(with_places(corpus(1500), first), per_class=WANTED)
    assert more == {}, "nor does one that is full"
    rows = with_places(corpus(1500), first)
    tested = {key: one for key, one in first.items() if one["part"] == "test"}
    lost = next(key for key, one in tested.items() if key != one["group_id"])
    rows[int(lost)]["kept"] = False
    changed, _ = split(rows, per_class=WANTED)
    assert changed.pop(lost)["part"] is None
    (filled,) = changed.values()
    assert filled["part"] == "test"
    assert rows[int(filled["image_id"])]["label"] == rows[int(lost)]["label"]


def test_a_smaller_subset_lies_within_the_larger_and_none_is_the_whole() -> None:
    rows = corpus(900)
    first, _ = split(rows, per_class=WANTED)
    less, _ = split(with_places(rows, first), per_class=WANTED | {"train": 90})
    assert {one["part"] for one in less.values()} == {None}
    assert len(less) == 60
    assert {first[key]["part"] for key in less} == {"train"}
    whole, _ = split(with_places(rows, first))
    assert set(whole) == {one["image_id"] for one in rows} - set(first)


def test_images_without_a_label_are_of_no_class() -> None:
    rows = corpus(900)
    for number in range(0, 900, 9):
        rows[number]["label"] = None
    some, _ = split(rows, per_class={"train": 100, "val": 10})
    unlabelled = {one["image_id"] for one in rows if one["label"] is None}
    assert {some[key]["part"] for key in unlabelled & set(some)} == {"test"}


def test_folds_are_dealt_within_the_subset() -> None:
    rows = corpus(900)
    some, _ = split(rows, per_class=WANTED, folds=5)
    folds = Counter(one["fold"] for one in some.values())
    assert folds.pop(None) == 80, "the test part"
    assert sum(folds.values()) == 280
    assert max(folds.values()) - min(folds.values()) <= 6
    groups = defaultdict(set)
    for one in some.values():
        groups[one["group_id"]].add(one["fold"])
    assert all(len(found) == 1 for found in groups.values())


def test_every_shortage_is_named_before_a_run_begins() -> None:
    rows = corpus(300)
    whole, _ = split(rows)
    had = sizes(whole, rows)
    with pytest.raises(SplitError) as error:
        splitting.check(table(rows), PARAMS | {"per_class": {"train": 100, "test": 30}})
    message = str(error.value)
    assert f"{had['train', 'ill']} of 100 images of ill in train" in message
    assert f"{had['test', 'ill']} of 30 images of ill in test" in message
    assert "of well" not in message.partition("Ask for fewer")[0]
    assert "there are 100 images of ill, 200 images of well in all" in message
    splitting.check(table(rows), PARAMS | {"per_class": {"train": had["train", "ill"]}})


def given_corpus() -> list[dict[str, Any]]:
    """Train 0-599, test 600-899; patients have four images, and one is on both sides."""
    rows = corpus(900)
    for one in rows:
        one["splits"] = ["train" if int(one["image_id"]) < 600 else "test"]
    rows[600]["patient_ids"] = rows[3]["patient_ids"]
    return rows


def test_a_subset_of_a_given_split() -> None:
    rows = given_corpus()
    some, result = split(rows, mode="given", per_class={"train": 150, "test": 90})
    assert sizes(some, rows) == exactly({"train": 150, "test": 90})
    assert result.facts["left out because they leak"] == 4, "images 0 to 3"
    assert result.facts["left out beyond what per_class asks for"] == 896 - 480
    assert not {f"{n:06d}" for n in range(4)} & set(some)


def test_val_is_a_share_of_a_given_train() -> None:
    rows = given_corpus()
    places, _ = split(rows, mode="given", val_share=0.2)
    found = Counter(one["part"] for one in places.values())
    assert found == {
        "train": pytest.approx(477, abs=4),
        "val": pytest.approx(119, abs=4),
        "test": 300,
    }
    groups = defaultdict(set)
    for one in places.values():
        groups[one["group_id"]].add(one["part"])
    assert all(len(parts) == 1 for parts in groups.values())
    # Those in val stay there when images are added.
    added = [row(n, patient_ids=[f"p{n // 4}"], splits=["train"]) for n in range(900, 1000)]
    more, _ = split([*with_places(rows, places), *added], mode="given", val_share=0.2)
    assert set(more) == {one["image_id"] for one in added}
    new = Counter(one["part"] for one in more.values())
    assert new["val"] == pytest.approx(20, abs=4)


def test_val_that_is_given_stays_and_gets_more() -> None:
    rows = given_corpus()
    for one in rows[100:200]:
        one["splits"] = ["val"]
    places, _ = split(rows, mode="given", val_share=0.1)
    assert all(places[f"{n:06d}"]["part"] == "val" for n in range(100, 200))
    found = Counter(one["part"] for one in places.values())
    assert found["val"] == pytest.approx(150, abs=4)


def test_a_naive_subset() -> None:
    rows = corpus(900)
    some, result = split(rows, mode="random", per_class=WANTED)
    assert sizes(some, rows) == exactly(WANTED)
    leaks = [
        one for one in result.tables["metrics"].to_pylist() if one["metric"] == "leak_patients"
    ]
    assert all(one["value"] > 0 for one in leaks)


def test_an_empty_corpus_has_no_shortage() -> None:
    empty = table([])
    found = keep_per_class(empty, np.zeros(0, np.int64), np.zeros(0, np.int64), {"val": 3}, 0, "s")
    assert found.tolist() == []
    assert isinstance(empty, pa.Table)
