"""Keys of names, and rows found by them, against a dict."""

import random

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from jobs.ingest import keys as module
from jobs.ingest.keys import NOWHERE, Hasher, Index

SEED = 7


def keys_of(*values: bytes) -> list[tuple[int, ...]]:
    return [tuple(key) for key in Hasher(SEED).keys(pa.array(values, pa.binary())).tolist()]


def test_a_key_depends_on_its_value_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [b"", b"a", b"/archive/1.png", b"x" * 8, b"x" * 9, b"y" * 5000, b"\xff\xfe", b"a"]
    alone = [keys_of(value)[0] for value in values]
    assert keys_of(*values) == alone
    sliced = pa.array([b"longer than the others", *values, b"z"], pa.binary()).slice(1, len(values))
    assert Hasher(SEED).keys(sliced).tolist() == [list(key) for key in alone]
    monkeypatch.setattr(module, "_STRETCH_ROWS", 3)
    assert keys_of(*values) == alone
    assert keys_of() == []
    assert np.array(alone[1], np.uint64).tobytes() == xxhash.xxh3_128_digest(b"a", SEED)


def test_values_that_differ_little_have_other_keys() -> None:
    close = [
        b"",
        b"\0",
        b"\0\0",
        b"\0" * 8,
        b"\0" * 9,
        b"a",
        b"a\0",
        b"\0a",
        b"aaaaaaaab",
        b"aaaaaaaac",
        # Under a multiplication of words by odd factors, these two share a key by one seed in many.
        b"aaaaaaapbbbpbbbpccc",
        b"aaaaaaa0bbb0bbb0ccc",
    ]
    assert len(set(keys_of(*close))) == len(close)
    for seed in range(500):
        assert len(np.unique(Hasher(seed).keys(pa.array(close)), axis=0)) == len(close)
    names = [b"/archive/person%07d/%07d.png" % (number // 5, number) for number in range(50_000)]
    found = Hasher(SEED).keys(pa.array(names))
    for column in range(2):  # even half a key tells them apart
        assert len(np.unique(found[:, column])) == len(names)
        # Every bit is set in half of them, give or take six standard deviations.
        bits = np.unpackbits(found[:, column : column + 1].copy().view(np.uint8), axis=1)
        assert np.abs(bits.mean(0) - 0.5).max() < 6 * 0.5 / len(names) ** 0.5


def test_each_hasher_has_a_seed_of_its_own() -> None:
    value = pa.array([b"/archive/1.png"])
    assert Hasher().keys(value).tolist() != Hasher().keys(value).tolist()


@pytest.mark.parametrize("most", [1, 3, 1000])
def test_rows_are_found_as_in_a_dict(most: int) -> None:
    """Also where many share the first half of a key, the whole of it, or lie at either end."""
    chance = random.Random(most)
    stored = [(chance.randrange(most), chance.randrange(most)) for _ in range(200)]
    stored += [(0, 0), (2**64 - 1, 2**64 - 1), (2**64 - 1, 0)]
    first: dict[tuple[int, int], int] = {}
    for row, key in enumerate(stored):
        first.setdefault(key, row)
    sought = [(a, b) for a in range(min(most, 30) + 1) for b in range(min(most, 30) + 1)] + stored
    found = Index(np.array(stored, np.uint64)).find(np.array(sought, np.uint64))
    assert found.tolist() == [first.get(key, NOWHERE) for key in sought]


def test_nothing_is_found_among_nothing() -> None:
    nothing = np.empty((0, 2), np.uint64)
    assert Index(nothing).find(np.ones((3, 2), np.uint64)).tolist() == [NOWHERE] * 3
    assert Index(np.ones((3, 2), np.uint64)).find(nothing).tolist() == []
