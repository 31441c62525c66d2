import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from workers.pixels.hamming import Layout, matches, matches_within
from workers.pixels.neighbours import TooManyPairs, equal_hashes, keep_in_order, pairs

Words = NDArray[np.uint64]


def words(values: list[int]) -> Words:
    return np.array(values, np.uint64)


@st.composite
def crowded_hashes(draw: st.DrawFn) -> Words:
    """Hashes that are equal, near, or far: random flips of a few random centres."""
    seed = draw(st.integers(0, 2**32 - 1))
    count = draw(st.integers(0, 60))
    flips = draw(st.integers(0, 9))
    random = np.random.default_rng(seed)
    centres = random.integers(0, 2**64, 4, dtype=np.uint64)
    found = centres[random.integers(0, len(centres), count)]
    for _ in range(flips):
        flip = random.random(count) < 0.5
        bit = np.uint64(1) << random.integers(0, 64, count, dtype=np.uint64)
        found = np.where(flip, found ^ bit, found)
    return found.astype(np.uint64)


def skewed(count: int, seed: int) -> Words:
    """Hashes whose bits are as unfair as those of chest X-rays."""
    random = np.random.default_rng(seed)
    chance = np.concatenate([np.full(24, 0.03), np.linspace(0.1, 0.9, 40)])
    bits = random.random((count, 64)) < chance
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def brute_pairs(hashes: Words, distance: int) -> dict[tuple[int, int], int]:
    """Pairs of first members of classes, and of later members with their first one."""
    values = [int(value) for value in hashes]
    first = {value: values.index(value) for value in values}
    found = {}
    for i, one in enumerate(values):
        for j in range(i + 1, len(values)):
            apart = (one ^ values[j]).bit_count()
            leaders = first[one] == i and first[values[j]] == j
            if (leaders and apart <= distance) or (apart == 0 and first[one] == i):
                found[i, j] = apart
    return found


def brute_keep(hashes: Words, distance: int, before: Words) -> list[int]:
    kept = [(index, int(value)) for index, value in enumerate(before)]
    answer = []
    for index, value in enumerate(int(one) for one in hashes):
        equal = [at for at, other in kept if other == value]
        near = equal or [at for at, other in kept if (other ^ value).bit_count() <= distance]
        answer.append(near[0] if near else -1)
        if not near:
            kept.append((len(before) + index, value))
    return answer


@given(crowded_hashes(), st.integers(0, 8))
def test_pairs_are_those_of_brute_force(hashes: Words, distance: int) -> None:
    found = pairs(hashes, distance)
    listed = {
        (int(i), int(j)): int(apart)
        for i, j, apart in zip(found.i, found.j, found.distance, strict=True)
    }
    assert len(listed) == len(found), "no pair twice"
    assert listed == brute_pairs(hashes, distance)


@given(crowded_hashes(), crowded_hashes(), st.integers(0, 8))
def test_pairs_against_others_are_those_of_brute_force(
    hashes: Words, others: Words, distance: int
) -> None:
    found = pairs(hashes, distance, others)
    one, two = equal_hashes(hashes).first, equal_hashes(others).first
    expected = {
        (int(i), int(j)): (int(hashes[i]) ^ int(others[j])).bit_count()
        for i in one
        for j in two
        if (int(hashes[i]) ^ int(others[j])).bit_count() <= distance
    }
    assert expected == {
        (int(i), int(j)): int(apart)
        for i, j, apart in zip(found.i, found.j, found.distance, strict=True)
    }


@pytest.mark.parametrize("distance", range(9))
@pytest.mark.parametrize("make", ["uniform", "skewed"])
def test_every_layout_finds_every_pair(distance: int, make: str) -> None:
    # Large enough for tables, several blocks and radii to be chosen.
    random = np.random.default_rng(distance)
    if make == "skewed":
        base = skewed(3000, distance)
    else:
        base = random.integers(0, 2**64, 3000, dtype=np.uint64)
    planted = base[:400].copy()
    for row in range(len(planted)):
        flipped = random.choice(64, random.integers(1, 10), replace=False)
        for bit in flipped:
            planted[row] ^= np.uint64(1 << int(bit))
    hashes = np.unique(np.concatenate([base, planted]))
    random.shuffle(hashes)
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    i, j = np.nonzero(np.triu(apart <= distance, 1))
    found = pairs(hashes, distance)
    assert np.array_equal(found.i, i)
    assert np.array_equal(found.j, j)
    assert np.array_equal(found.distance, apart[i, j])


def test_index_and_plain_comparison_agree() -> None:
    hashes = np.unique(skewed(20_000, 5))
    layout = Layout.choose(hashes, 6)
    arranged = layout.arrange(hashes)
    within = {pair for part in matches_within(arranged, layout) for pair in zip(*part, strict=True)}
    some = arranged[:50]
    expected = {pair for pair in within if pair[0] < 50}
    both = {
        (min(i, j), max(i, j))
        for part in matches(some, arranged, layout)
        for i, j in zip(*part, strict=True)
        if i != j
    }
    assert both == expected | {pair for pair in within if pair[1] < 50}


@pytest.mark.parametrize("distance", range(9))
@pytest.mark.parametrize("values", [[], [2**64 - 1], [0, 2**64 - 1], [0, 0, 1 << 63]])
def test_few_hashes_at_any_distance(values: list[int], distance: int) -> None:
    hashes = words(values)
    found = pairs(hashes, distance)
    expected = brute_pairs(hashes, distance)
    assert set(zip(found.i.tolist(), found.j.tolist(), strict=True)) == set(expected)
    kept = keep_in_order(hashes, distance).duplicate_of.tolist()
    assert kept == brute_keep(hashes, distance, hashes[:0])


def test_arranging_keeps_distances() -> None:
    hashes = skewed(200, 1)
    arranged = Layout.choose(hashes, 4).arrange(hashes)
    before = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    assert np.array_equal(before, np.bitwise_count(arranged[:, None] ^ arranged[None, :]))


@given(crowded_hashes(), crowded_hashes(), st.integers(0, 8))
def test_the_rule_is_that_of_a_plain_walk(hashes: Words, before: Words, distance: int) -> None:
    found = keep_in_order(hashes, distance, before)
    assert found.duplicate_of.tolist() == brute_keep(hashes, distance, before)
    everything = np.concatenate([before, hashes])
    for index, original in enumerate(found.duplicate_of):
        expected = 0 if original < 0 else int(everything[original] ^ hashes[index]).bit_count()
        assert found.distance[index] == expected


@pytest.mark.parametrize("distance", [2, 6, 8])
def test_the_rule_on_hashes_too_dense_to_list_their_pairs(distance: int) -> None:
    # All within 12 bits: hundreds of neighbours each, so that halves are settled in turn.
    random = np.random.default_rng(distance)
    hashes = random.integers(0, 2**12, 6000, dtype=np.uint64) << np.uint64(20)
    expected = brute_keep(hashes, distance, hashes[:0])
    assert keep_in_order(hashes, distance).duplicate_of.tolist() == expected


def test_chains_do_not_grow() -> None:
    # Each is 1 bit from the next; the second repeats the first, the third only the second.
    assert keep_in_order(words([0b0, 0b1, 0b11]), 1).duplicate_of.tolist() == [-1, 0, -1]


def test_in_two_runs_as_in_one() -> None:
    hashes = skewed(4000, 8)
    together = keep_in_order(hashes, 6).duplicate_of
    first = keep_in_order(hashes[:2500], 6).duplicate_of
    kept = np.flatnonzero(first < 0)
    second = keep_in_order(hashes[2500:], 6, hashes[kept]).duplicate_of
    places = np.concatenate([kept, np.arange(2500, 4000)])
    assert np.array_equal(first, together[:2500])
    assert np.array_equal(np.where(second < 0, -1, places[second]), together[2500:])


def test_thousands_of_equal_hashes_cost_one_pair_each() -> None:
    hashes = np.concatenate([np.zeros(50_000, np.uint64), words([1, 0b111])])
    found = pairs(hashes, 2)
    assert len(found) == 49_999 + 2
    assert keep_in_order(hashes, 2).duplicate_of.tolist() == [-1] + [0] * 50_000 + [-1]


def test_equal_hashes_are_classes_in_order_of_appearance() -> None:
    classes = equal_hashes(words([9, 4, 9, 7, 4, 9]))
    assert classes.first.tolist() == [0, 1, 3]
    assert classes.label.tolist() == [0, 1, 0, 2, 1, 0]
    assert classes.sizes.tolist() == [3, 2, 1]


@pytest.mark.parametrize("distance", [-1, 9])
def test_distances_out_of_range_are_refused(distance: int) -> None:
    with pytest.raises(ValueError, match=f"must be 0 to 8: got {distance}"):
        pairs(words([1, 2]), distance)


def test_more_pairs_than_asked_for_are_refused() -> None:
    hashes = np.arange(4096, dtype=np.uint64)
    assert len(pairs(hashes, 1, limit=12 * 2048)) == 12 * 2048
    with pytest.raises(TooManyPairs):
        pairs(hashes, 1, limit=12 * 2048 - 1)


@pytest.mark.slow
def test_speed_at_a_million() -> None:
    random = np.random.default_rng(0)
    bits = random.random((1_000_000, 64), dtype=np.float32) < np.linspace(0.1, 0.9, 64)
    hashes = np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)
    started = time.process_time()
    found = pairs(hashes, 6)
    assert len(found) > 10_000
    assert time.process_time() - started < 60
