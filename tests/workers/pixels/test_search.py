"""Searches cut into parts find what whole ones find."""

import pickle
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.pixels.test_neighbours import (
    Words,
    brute_keep,
    brute_pairs,
    crowded_hashes,
    skewed,
)
from workers.pixels import search
from workers.pixels.neighbours import Pairs, TooManyPairs, keep_in_order, pairs
from workers.pixels.search import pack, unpack
from workers.spreading import here

Shared = TypeVar("Shared")
Part = TypeVar("Part")
Result = TypeVar("Result")


class Elsewhere:
    """Pretends that every part is computed in a process of its own; counts them."""

    def __init__(self) -> None:
        self.parts = 0

    def __call__(
        self,
        function: Callable[[Shared, Part], Result],
        shared: Shared,
        parts: Sequence[Part],
    ) -> Generator[Result]:
        stored = pickle.dumps((function, shared))
        for part in parts:
            self.parts += 1
            compute, common = pickle.loads(stored)
            yield pickle.loads(pickle.dumps(compute(common, pickle.loads(pickle.dumps(part)))))


@pytest.fixture(scope="module", autouse=True)
def tiny_parts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_PART_NS", 40.0)
        patch.setattr(search, "_INDEX_NS", 0.0)
        yield


def listed(found: Pairs) -> dict[tuple[int, int], int]:
    places = zip(found.i.tolist(), found.j.tolist(), strict=True)
    return dict(zip(places, found.distance.tolist(), strict=True))


@given(crowded_hashes(), st.integers(0, 8))
def test_pairs_found_in_parts_are_those_of_brute_force(hashes: Words, distance: int) -> None:
    found = pairs(hashes, distance, spread=Elsewhere())
    assert len(listed(found)) == len(found), "no pair twice"
    assert listed(found) == brute_pairs(hashes, distance)


@given(crowded_hashes(), crowded_hashes(), st.integers(0, 8))
def test_new_ones_against_old_ones_in_parts(hashes: Words, old: Words, distance: int) -> None:
    whole = pairs(hashes, distance, old)
    assert listed(pairs(hashes, distance, old, spread=Elsewhere())) == listed(whole)
    kept = keep_in_order(hashes, distance, old, spread=Elsewhere())
    assert kept.duplicate_of.tolist() == brute_keep(hashes, distance, old)


@pytest.mark.parametrize("distance", range(9))
def test_parts_of_many_hashes(distance: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_PART_NS", 1e5 * 2**distance)
    hashes = skewed(12_000, distance)
    hashes[::97] = hashes[0]
    elsewhere = Elsewhere()
    whole, cut = pairs(hashes, distance), pairs(hashes, distance, spread=elsewhere)
    assert elsewhere.parts > 1
    assert (cut.i.tolist(), cut.j.tolist()) == (whole.i.tolist(), whole.j.tolist())
    assert np.array_equal(cut.distance, np.bitwise_count(hashes[cut.i] ^ hashes[cut.j]))
    few, many = hashes[:3000], hashes[3000:]
    expected = keep_in_order(many, distance, few)
    elsewhere.parts = 0
    found = keep_in_order(many, distance, few, spread=elsewhere)
    assert elsewhere.parts > 1
    assert np.array_equal(found.duplicate_of, expected.duplicate_of)
    assert np.array_equal(found.distance, expected.distance)


@pytest.mark.parametrize("spread", [here, Elsewhere()])
def test_the_limit_counts_over_all_parts(
    spread: search.Spread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_PART_NS", 1e4)
    hashes = np.arange(2048, dtype=np.uint64)
    assert len(pairs(hashes, 1, limit=11 * 1024, spread=spread)) == 11 * 1024
    with pytest.raises(TooManyPairs):
        pairs(hashes, 1, limit=11 * 1024 - 1, spread=spread)


def test_dense_hashes_are_dropped_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    # All within 12 bits: too many pairs to list, so that halves are settled in turn.
    monkeypatch.setattr(search, "_PART_NS", 1e6)
    random = np.random.default_rng(3)
    hashes = random.integers(0, 2**12, 6000, dtype=np.uint64) << np.uint64(20)
    elsewhere = Elsewhere()
    found = keep_in_order(hashes, 6, spread=elsewhere).duplicate_of
    assert elsewhere.parts > 1
    assert found.tolist() == brute_keep(hashes, 6, hashes[:0])


def test_a_search_of_a_moment_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_PART_NS", 1.5e9)
    elsewhere = Elsewhere()
    pairs(skewed(5000, 1), 4, spread=elsewhere)
    assert elsewhere.parts == 0


def test_packed_pairs_sort_as_pairs_do() -> None:
    i, j = np.array([2**32 - 1, 0, 5]), np.array([0, 2**32 - 1, 7])
    packed = pack(i, j)
    assert packed.tolist() == [(2**32 - 1) << 32, 2**32 - 1, (5 << 32) + 7]
    assert [part.tolist() for part in unpack(packed)] == [i.tolist(), j.tolist()]
