"""Groups, places and leaks of splits."""

import hashlib
import itertools
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_matrix, csgraph

from schemas.errors import LeakError, SplitError
from tests.workers.splits import PARAMS, corpus, row, split, table, with_places
from workers import splitting
from workers.assigning import assign, gather
from workers.grouping import check_group_sizes, connected_components, group, link
from workers.leaks import find_leaks
from workers.parts import BITS, parts_of


@given(st.integers(1, 40), st.data())
def test_components_are_those_of_scipy(count: int, data: st.DataObject) -> None:
    node = st.integers(0, count - 1)
    edges = data.draw(st.lists(st.tuples(node, node), max_size=60))
    i = np.array([one for one, _ in edges], np.int64)
    j = np.array([two for _, two in edges], np.int64)
    found = connected_components(count, i, j)
    graph = coo_matrix((np.ones(len(edges)), (i, j)), (count, count))
    _, expected = csgraph.connected_components(graph, directed=False)
    assert (found[:, None] == found[None, :]).tolist() == (
        expected[:, None] == expected[None, :]
    ).tolist()
    assert all(found[found[at]] == found[at] <= at for at in range(count))


def test_long_chains_are_one_component() -> None:
    order = np.random.default_rng(0).permutation(5000)
    assert not connected_components(5000, order[:-1], order[1:]).any()


def test_groups_join_patients_and_near_duplicates_but_not_nulls() -> None:
    rows = table(
        [
            row(0, patient_ids=["a"], phash="00000000000000ff"),
            row(1, patient_ids=["b", "a"], phash=None),
            row(2, patient_ids=["b"], phash="ff00000000000000"),
            row(3, patient_ids=[None], phash="ff00000000000003"),
            row(4, patient_ids=[None], phash=None),
            row(5, patient_ids=[], phash="0f0f0f0f0f0f0f0f"),
        ]
    )
    assert group(link(rows, 2), 6).tolist() == [0, 0, 0, 0, 4, 5]
    assert group(link(rows, 1), 6).tolist() == [0, 0, 0, 3, 4, 5]


def test_a_split_has_no_patient_and_no_near_duplicate_on_two_sides() -> None:
    rows = corpus(600)
    for number in range(0, 600, 40):
        # A near-duplicate of an image of the next patient.
        other = int(rows[number + 6]["phash"], 16) ^ 0b11
        rows[number]["phash"] = f"{other:016x}"
    places, result = split(rows)
    parts = defaultdict(set)
    for one in rows:
        parts[one["patient_ids"][0]].add(places[one["image_id"]]["part"])
    assert all(len(some) == 1 for some in parts.values())
    for number in range(0, 600, 40):
        pair = (places[f"{number:06d}"], places[f"{number + 6:06d}"])
        assert pair[0]["part"] == pair[1]["part"]
        assert pair[0]["group_id"] == pair[1]["group_id"]
    made = [one for one in result.tables["metrics"].to_pylist() if one["category"] == "made"]
    assert len(made) == 9
    assert not any(one["value"] for one in made)


def test_shares_hold_for_every_label() -> None:
    places, result = split(corpus(2000))
    sizes = Counter(one["part"] for one in places.values())
    assert sizes == {
        "train": pytest.approx(1400, abs=8),
        "val": pytest.approx(200, abs=8),
        "test": pytest.approx(400, abs=8),
    }
    assert result.facts["images in test"] == sizes["test"]
    for label in ("ill", "well"):
        rows = [one for one in corpus(2000) if one["label"] == label]
        here = Counter(places[one["image_id"]]["part"] for one in rows)
        assert here["test"] / len(rows) == pytest.approx(0.2, abs=0.02)
        assert here["val"] / len(rows) == pytest.approx(0.1, abs=0.02)


def test_seeds_differ_and_the_order_of_rows_does_not() -> None:
    rows = corpus(400)
    one, _ = split(rows)
    same, _ = split(rows[::-1])
    other, _ = split(rows, seed=1)
    assert one == same
    assert one != other
    changed = [key for key in one if one[key]["part"] != other[key]["part"]]
    assert len(changed) > 40


def test_added_images_move_nobody_and_fill_the_deficits() -> None:
    first, _ = split(corpus(1000))
    more = with_places(corpus(1500), first)
    added, _ = split(more)
    assert set(added) == {f"{number:06d}" for number in range(1000, 1500)}
    sizes = Counter(one["part"] for one in [*first.values(), *added.values()])
    assert sizes["test"] == pytest.approx(300, abs=8)
    again, _ = split(with_places(corpus(1500), first | added))
    assert again == {}, "a split that stands writes nothing"


def test_a_link_between_parts_moves_images_to_where_models_learned() -> None:
    first, _ = split(corpus(400))
    trained = next(key for key, one in first.items() if one["part"] == "train")
    tested = next(key for key, one in first.items() if one["part"] == "test")
    rows = with_places(corpus(400), first)
    bridge = row(
        400,
        patient_ids=[rows[int(trained)]["patient_ids"][0], rows[int(tested)]["patient_ids"][0]],
    )
    changed, _ = split([*rows, bridge])
    assert changed["000400"]["part"] == "train"
    assert changed[tested]["part"] == "train"
    moved = rows[int(tested)]["patient_ids"]
    assert {rows[int(key)]["patient_ids"][0] for key in changed if key != "000400"} <= {
        moved[0],
        rows[int(trained)]["patient_ids"][0],
    }


def test_images_no_longer_kept_leave_the_split() -> None:
    first, _ = split(corpus(100))
    rows = with_places(corpus(100), first)
    rows[7]["kept"] = False
    changed, _ = split(rows)
    assert changed == {
        "000007": {
            "split_name": "s",
            "dataset": "d",
            "image_id": "000007",
            "group_id": None,
            "fold": None,
            "part": None,
        }
    }


def test_other_rules_ignore_earlier_places() -> None:
    first, _ = split(corpus(300))
    rows = with_places(corpus(300), first)
    fresh, _ = split(corpus(300), seed=5)
    redone, _ = split(rows, seed=5, keep_parts=False, keep_folds=False)
    result = {**first, **redone}
    assert {key: one["part"] for key, one in result.items()} == {
        key: one["part"] for key, one in fresh.items()
    }


def test_folds_cover_all_but_test_and_keep_groups_whole() -> None:
    places, _ = split(corpus(1000), folds=5)
    outside = [one for one in places.values() if one["part"] != "test"]
    assert all(one["fold"] is None for one in places.values() if one["part"] == "test")
    sizes = Counter(one["fold"] for one in outside)
    assert sorted(sizes) == [0, 1, 2, 3, 4]
    assert max(sizes.values()) - min(sizes.values()) <= 12
    folds = defaultdict(set)
    for one in outside:
        folds[one["group_id"]].add(one["fold"])
    assert all(len(some) == 1 for some in folds.values())


def given_corpus() -> list[dict[str, Any]]:
    """Train 0-59, test 60-99; one patient, one image and two near-duplicates on both sides."""
    rows = [row(n, splits=["train" if n < 60 else "test"]) for n in range(100)]
    rows[0]["patient_ids"], rows[60]["patient_ids"] = ["p"], ["p"]
    rows[1]["patient_ids"] = ["p"]
    rows[5]["splits"], rows[5]["copies"] = ["test", "train"], 2
    for train, test, flip in ((10, 70, 0b11), (10, 71, 0)):
        rows[test]["phash"] = f"{int(rows[train]['phash'], 16) ^ flip:016x}"
    return rows


def test_a_given_split_is_audited() -> None:
    _, result = split(given_corpus())
    assert result.facts["patients in train and test as given"] == 1
    assert result.facts["images in train and test as given"] == 1
    assert result.facts["near-duplicates in train and test as given"] == 2
    assert result.facts["files that repeat another's bytes"] == 1
    given_rows = {
        one["metric"]: (one["value"], one["part"], one["n"])
        for one in result.tables["metrics"].to_pylist()
        if one["category"] == "given"
    }
    assert given_rows == {
        "leak_patients": (1, "train|test", 41),
        "leak_images": (1, "train|test", 41),
        "leak_near_duplicates": (2, "train|test", 41),
    }


def test_images_that_cleaning_dropped_count_in_the_audit_and_stay_out() -> None:
    rows = given_corpus()
    for number in (0, 1, 70, 71):
        rows[number]["kept"] = False
    places, result = split(rows)
    assert result.facts["patients in train and test as given"] == 1
    assert result.facts["near-duplicates in train and test as given"] == 2
    assert len(places) == 96


def test_a_given_split_is_taken_over_without_its_leaks() -> None:
    places, result = split(given_corpus(), mode="given")
    parts = {int(key): one["part"] for key, one in places.items()}
    assert all(parts[n] == "test" for n in (*range(60, 100), 5))
    assert set(range(100)) - set(parts) == {0, 1, 10}, "train images that leak into test"
    assert result.facts["left out because they leak"] == 3
    made = [one for one in result.tables["metrics"].to_pylist() if one["category"] == "made"]
    assert [one["value"] for one in made] == [0, 0, 0]


def test_near_duplicate_leaks_equal_those_of_brute_force() -> None:
    random = np.random.default_rng(0)
    centres = random.integers(0, 2**64, 6, dtype=np.uint64)
    hashes = centres[random.integers(0, 6, 80)]
    for _ in range(2):
        flips = np.uint64(1) << random.integers(0, 8, 80, dtype=np.uint64)
        hashes = np.where(random.random(80) < 0.5, hashes ^ flips, hashes)
    names = [random.choice(["train", "val", "test"]) for _ in range(80)]
    rows = table([row(n, phash=f"{int(value):016x}") for n, value in enumerate(hashes)])
    found = find_leaks(rows, link(rows, 2), np.array([BITS[name] for name in names], np.uint8))
    near = np.bitwise_count(hashes[:, None] ^ hashes[None, :]) <= 2
    np.fill_diagonal(near, val=False)
    inside = {part: np.array([name == part for name in names]) for part in set(names)}
    expected = {
        (one, two): int((near[:, inside[one]].any(axis=1) & inside[two]).sum())
        for one, two in itertools.combinations(["train", "val", "test"], 2)
    }
    assert {(leak.first, leak.second): leak.near_duplicates for leak in found} == expected


def test_too_large_a_group_is_refused_with_figures() -> None:
    rows = corpus(3000, per_patient=1)
    for number in range(60):
        # A chain: each within 2 bits of the next, 0 and 59 far apart.
        rows[number]["phash"] = f"{2**number - 1:016x}"
    with pytest.raises(SplitError) as error:
        splitting.check(table(rows), PARAMS | {"distance": 2})
    message = str(error.value)
    assert "60 of 3,000 images" in message
    assert "2.0%, allowed are 30 images (1.0%)" in message
    assert "near-duplicate pairs within distance 2" in message
    assert "Lower split_distance (the largest group has 1 images at distance 0)" in message
    splitting.check(table(rows), PARAMS | {"max_group_share": 0.02})
    splitting.check(table(rows), PARAMS | {"distance": 0})


def test_a_corpus_of_lookalikes_is_refused_before_its_pairs_fill_the_memory() -> None:
    rows = [row(n, phash=f"{n:016x}") for n in range(1024)]
    with pytest.raises(SplitError, match="1,024 images have more than 50 near-duplicates each"):
        splitting.check(table(rows), PARAMS | {"distance": 3})


def test_a_small_corpus_may_have_whole_patients() -> None:
    rows = corpus(100, per_patient=20)
    splitting.check(table(rows), PARAMS)
    links = link(table(corpus(100, per_patient=26)), 2)
    with pytest.raises(SplitError, match="26 of 100 images"):
        check_group_sizes(group(links, 100), links, 0.01, 2)


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ([row(1, kept=False)], {}, "There is no kept image to split .*Run clean"),
        ([row(1)], {"mode": "given"}, "gives no split to take over .*mode: make"),
        ([row(1, splits=["holdout"])], {}, "parts of unknown meaning: got holdout"),
    ],
)
def test_what_can_not_be_split_is_refused(
    rows: list[dict[str, Any]], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SplitError, match=message):
        splitting.check(table(rows), PARAMS | changes)


def test_a_split_that_leaks_is_never_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "assign", lambda groups, shares, seed: np.array([0, 2]))
    monkeypatch.setattr(splitting, "group", lambda links, count: np.arange(count))
    with pytest.raises(LeakError, match="1 patients, 0 images and 0 near-duplicates on both"):
        split([row(0, patient_ids=["p"]), row(1, patient_ids=["p"])])


def test_parts_are_known_by_their_usual_names() -> None:
    assert parts_of(["Training", "VALID", "test"]) == ["train", "val", "test"]


def placed(sizes: dict[str, int], shares: list[float], seed: int) -> dict[str, int]:
    """Assign groups of one label by name."""
    names = pa.array(list(sizes), pa.string())
    member = np.repeat(np.arange(len(sizes)), list(sizes.values()))
    groups = gather(names, member, np.zeros_like(member), np.full(len(member), -1))
    return dict(zip(sizes, assign(groups, shares, seed).tolist(), strict=True))


def test_places_with_share_zero_get_nothing_new() -> None:
    found = placed({str(n): 1 for n in range(50)}, [0.8, 0.0, 0.2], 0)
    assert Counter(found.values()) == {0: 40, 2: 10}


def test_large_groups_go_to_all_places() -> None:
    sizes = {f"large{n}": 20 for n in range(10)} | {f"single{n}": 1 for n in range(200)}
    found = placed(sizes, [0.5, 0.5], 3)
    large = Counter(place for name, place in found.items() if name.startswith("large"))
    assert large == {0: 5, 1: 5}


def test_the_leaks_of_a_real_split_are_found(shared_data: Path) -> None:
    # Facts of this archive: 170 person numbers in train and in test, 32 files that repeat others.
    images: dict[str, dict[str, Any]] = {}
    for file in sorted((shared_data / "cxr-kermany").glob("*/*/*.jp*g")):
        content = hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
        one = images.setdefault(content, row(len(images), image_id=content, phash=None, copies=0))
        person = re.match(r"person\d+", file.name)
        one["copies"] += 1
        one["label"] = file.parent.name
        one["splits"] = sorted({*one["splits"], file.parent.parent.name})
        one["patient_ids"] = sorted({*one["patient_ids"], *([person[0]] if person else [])})
    _, result = split(list(images.values()))
    assert result.facts["files that repeat another's bytes"] == 32
    assert result.facts["patients in train and test as given"] == 170
    assert result.facts["images in train"] == pytest.approx(0.7 * 5808, abs=20)
