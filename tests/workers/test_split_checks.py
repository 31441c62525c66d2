"""Splits checked by brute force: every pair of images, patients and hashes compared one by one.

Nothing of the code under test decides here what a leak is.
"""

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workers.splits import PARAMS, row, split, table, with_places
from workers.grouping import link, link_among

PARTS = ("train", "val", "test")
Rows = list[dict[str, Any]]
Places = dict[str, dict[str, Any]]

few = settings(max_examples=40)


@st.composite
def corpora(draw: st.DrawFn) -> Rows:
    """Images of few patients, with hashes in chains: each two bits from some earlier one."""
    count = draw(st.integers(3, 60))
    hashes: list[int] = []
    rows = []
    for number in range(count):
        if hashes and draw(st.booleans()):
            value = draw(st.sampled_from(hashes))
            for bit in draw(st.sets(st.integers(0, 63), max_size=3)):
                value ^= 1 << bit
        else:
            value = draw(st.integers(0, 2**64 - 1))
        hashes.append(value)
        rows.append(
            row(
                number,
                phash=draw(st.sampled_from([f"{value:016x}"] * 9 + [None])),
                patient_ids=draw(st.lists(st.sampled_from("abcdefghij"), max_size=2, unique=True)),
                label=draw(st.sampled_from(["ill", "well", None])),
                kept=draw(st.sampled_from([True] * 9 + [False])),
            )
        )
    rows[0]["kept"] = True
    return rows


def together(one: dict[str, Any], other: dict[str, Any], distance: int) -> str | None:
    """Say why two images must stay together."""
    if set(one["patient_ids"]) & set(other["patient_ids"]):
        return "patient"
    if one["phash"] is None or other["phash"] is None:
        return None
    apart = (int(one["phash"], 16) ^ int(other["phash"], 16)).bit_count()
    return "near_duplicate" if apart <= distance else None


def bonds(rows: Rows, distance: int) -> list[tuple[str, str]]:
    """Pairs that must stay together."""
    return [
        (one["image_id"], other["image_id"])
        for one, other in itertools.combinations(rows, 2)
        if together(one, other, distance)
    ]


def torn(pairs: list[tuple[str, str]], side: dict[str, Any]) -> list[tuple[str, str]]:
    """Those of the pairs that stand on two sides."""
    return [
        (one, other)
        for one, other in pairs
        if None not in (side.get(one), side.get(other)) and side[one] != side[other]
    ]


def sides(places: Places, folds: int) -> list[dict[str, Any]]:
    """Every division that a training may use: parts, folds, and the roles of nested folds."""
    parts = {key: one["part"] for key, one in places.items()}
    fold = {key: one["fold"] for key, one in places.items()}
    nested = [
        {
            key: None if number is None else {outer: "held out", inner: "val"}.get(number, "train")
            for key, number in fold.items()
        }
        for outer in range(folds)
        for inner in range(folds)
        if inner != outer
    ]
    return [parts, fold, *nested]


@few
@given(corpora(), st.integers(0, 4), st.integers(0, 3))
def test_nobody_stands_on_two_sides(rows: Rows, distance: int, seed: int) -> None:
    places, result = split(rows, folds=4, distance=distance, seed=seed, max_group_share=1.0)
    assert set(places) == {one["image_id"] for one in rows if one["kept"]}
    pairs = bonds(rows, distance)
    for side in sides(places, 4):
        assert torn(pairs, side) == []
    assert result.tables["leaks"].num_rows == 0
    for one in places.values():
        assert (one["fold"] is None) == (one["part"] == "test")


@few
@given(corpora(), st.integers(0, 4), st.data())
def test_a_given_split_keeps_nobody_on_two_sides(
    rows: Rows, distance: int, data: st.DataObject
) -> None:
    for one in rows:
        one["splits"] = data.draw(
            st.sampled_from([["train"], ["val"], ["test"], ["test", "train"]])
        )
    places, _ = split(rows, mode="given", folds=3, distance=distance)
    pairs = bonds(rows, distance)
    for side in sides(places, 3):
        assert torn(pairs, side) == []
    tested = {one["image_id"] for one in rows if one["kept"] and "test" in one["splits"]}
    assert {key for key, one in places.items() if one["part"] == "test"} == tested


def seen_by_brute_force(rows: Rows, side: dict[str, Any], distance: int) -> set[tuple[str, ...]]:
    """Kind, first part, second part and image of every image that an earlier part has seen."""
    found = set()
    for one, other in itertools.permutations(rows, 2):
        first, second = side.get(other["image_id"]), side.get(one["image_id"])
        if None in (first, second) or PARTS.index(first) >= PARTS.index(second):
            continue
        if set(one["patient_ids"]) & set(other["patient_ids"]):
            found.add(("patient", first, second, one["image_id"]))
        if together(one | {"patient_ids": []}, other, distance):
            found.add(("near_duplicate", first, second, one["image_id"]))
    return found


@few
@given(corpora(), st.integers(0, 4))
def test_the_audit_of_a_naive_split_names_what_brute_force_finds(rows: Rows, distance: int) -> None:
    places, result = split(rows, mode="random", distance=distance)
    side = {key: one["part"] for key, one in places.items()}
    leaks = result.tables["leaks"].to_pylist()
    names = ("kind", "first_part", "second_part", "image_id")
    assert {tuple(one[name] for name in names) for one in leaks} == seen_by_brute_force(
        rows, side, distance
    )
    by_id = {one["image_id"]: one for one in rows}
    inside = [one for one in rows if one["image_id"] in side]
    for leak in leaks:
        one, other = by_id[leak["image_id"]], by_id[leak["other_image_id"]]
        assert side[leak["other_image_id"]] == leak["first_part"]
        assert leak["source"] == "made"
        if leak["kind"] == "patient":
            assert leak["patient_id"] in {*one["patient_ids"]} & {*other["patient_ids"]}
            continue
        nearest = min(
            (int(one["phash"], 16) ^ int(rival["phash"], 16)).bit_count()
            for rival in inside
            if rival["phash"] and side[rival["image_id"]] == leak["first_part"]
        )
        assert leak["distance"] == nearest
        assert (int(one["phash"], 16) ^ int(other["phash"], 16)).bit_count() == nearest
    counted = {
        (row["part"], row["metric"]): row["value"]
        for row in result.tables["metrics"].to_pylist()
        if row["category"] == "made"
    }
    for (parts, metric), value in counted.items():
        kind = {"leak_patients": "patient", "leak_near_duplicates": "near_duplicate"}.get(metric)
        rows_here = [
            one
            for one in leaks
            if one["kind"] == kind and f"{one['first_part']}|{one['second_part']}" == parts
        ]
        key = "patient_id" if kind == "patient" else "image_id"
        assert value == len({one[key] for one in rows_here})


@few
@given(corpora(), st.integers(0, 4))
def test_links_among_kept_rows_are_those_of_these_rows_alone(rows: Rows, distance: int) -> None:
    everything = table(rows)
    kept = everything.filter(everything["kept"])
    found = link_among(link(everything, distance), kept, everything["kept"].to_numpy())
    alone = link(kept, distance)
    assert found.near.i.tolist() == alone.near.i.tolist()
    assert found.near.j.tolist() == alone.near.j.tolist()
    assert found.near.distance.tolist() == alone.near.distance.tolist()
    assert [ends.tolist() for ends in found.patients] == [ends.tolist() for ends in alone.patients]


@few
@given(corpora(), st.sampled_from(["make", "random"]), st.randoms(use_true_random=False))
def test_order_does_not_matter_and_a_seed_is_a_split(rows: Rows, mode: str, random: Any) -> None:
    mixed = list(rows)
    random.shuffle(mixed)
    one, first = split(rows, mode=mode, folds=3)
    other, second = split(mixed, mode=mode, folds=3)
    assert one == other
    assert first.tables["leaks"].equals(second.tables["leaks"])


def generated(count: int, seed: int) -> Rows:
    """Patients of one to eight images, three labels of unequal share, some near-duplicates."""
    random = np.random.default_rng(seed)
    rows: Rows = []
    while len(rows) < count:
        label = str(random.choice(["ill", "well", "rare"], p=[0.3, 0.6, 0.1]))
        patient = f"p{len(rows)}"
        for _ in range(random.integers(1, 9)):
            value = int(random.integers(0, 2**63))
            if rows and random.random() < 0.02:
                value = int(rows[random.integers(len(rows))]["phash"], 16) ^ 1
            name = f"{random.integers(2**60):015x}-{seed}"
            rows.append(
                row(
                    0,
                    image_id=name,
                    patient_ids=[patient],
                    label=label,
                    phash=f"{value:016x}",
                )
            )
    return rows


@pytest.mark.parametrize("mode", ["make", "random"])
def test_labels_have_their_share_in_every_part_and_fold(mode: str) -> None:
    rows = generated(3000, 1)
    places, _ = split(rows, mode=mode, folds=5)
    total = Counter(one["label"] for one in rows)
    parts = Counter((places[one["image_id"]]["part"], one["label"]) for one in rows)
    folds = Counter((places[one["image_id"]]["fold"], one["label"]) for one in rows)
    for label, count in total.items():
        for part, share in {"train": 0.7, "val": 0.1, "test": 0.2}.items():
            assert parts[part, label] / count == pytest.approx(share, abs=0.02), (part, label)
        for fold in range(5):
            assert folds[fold, label] / count == pytest.approx(0.8 / 5, abs=0.02), (fold, label)


@pytest.mark.parametrize("mode", ["make", "random"])
def test_a_tenth_more_images_move_nobody_out_of_test(mode: str) -> None:
    rows = generated(2000, 2)
    before, _ = split(rows, mode=mode, folds=5)
    more = [one | {"patient_ids": ["new" + one["patient_ids"][0]]} for one in generated(200, 3)]
    # Every other new patient is one that is known already.
    for at, one in enumerate(more[::2]):
        one["patient_ids"] = rows[at * 7]["patient_ids"]
    changed, _ = split([*with_places(rows, before), *more], mode=mode, folds=5)
    after = before | changed
    for name, one in before.items():
        if one["part"] == "test":
            assert after[name]["part"] == "test"
        assert (after[name]["part"], after[name]["fold"]) == (one["part"], one["fold"])
    sizes = Counter(one["part"] for one in after.values())
    assert sizes["test"] / len(after) == pytest.approx(0.2, abs=0.02)
    if mode == "make":
        pairs = bonds([*rows, *more], PARAMS["distance"])
        assert len(pairs) > 1000
        for side in sides(after, 5):
            assert torn(pairs, side) == []


def test_what_is_named_grows_with_images_and_not_with_pairs() -> None:
    # Three thousand blank images of one patient: millions of pairs on two sides.
    rows = [row(n, phash="0" * 16, patient_ids=["p"]) for n in range(3000)]
    places, result = split(rows, mode="random")
    sizes = Counter(one["part"] for one in places.values())
    # Two kinds; images of val are named once, those of test for train and for val.
    assert result.tables["leaks"].num_rows == 2 * (sizes["val"] + 2 * sizes["test"])


def test_an_image_in_two_given_parts_is_named() -> None:
    rows = [row(n, splits=["train"]) for n in range(8)]
    rows[3] |= {"splits": ["test", "train"], "copies": 2, "patient_ids": ["p"]}
    rows[5]["patient_ids"] = ["p"]
    rows[6] |= {"splits": ["val"], "patient_ids": ["q"], "phash": None}
    rows[7] |= {"splits": ["test"], "patient_ids": ["q"]}
    _, result = split(rows, mode="given")
    leaks = {
        (one["kind"], one["image_id"]): (one["other_image_id"], one["patient_id"], one["distance"])
        for one in result.tables["leaks"].to_pylist()
    }
    apart = (int(rows[3]["phash"], 16) ^ int(rows[5]["phash"], 16)).bit_count()
    assert leaks == {
        ("image", "000003"): ("000003", None, 0),
        ("patient", "000003"): ("000005", "p", apart),
        ("patient", "000007"): ("000006", "q", None),
    }
    assert {one["source"] for one in result.tables["leaks"].to_pylist()} == {"given"}


def test_a_table_without_images_of_a_kind_has_the_lakes_columns() -> None:
    _, result = split([row(n) for n in range(10)])
    schema = result.tables["leaks"].schema
    assert schema.field("distance").type == pa.int32()
    assert "run_id" not in schema.names
