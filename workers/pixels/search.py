"""Searches for near words, done here or cut into parts for other processes.

A part is a range of queries looked up in one block: its process sorts that block and needs nothing
but the words, which travel once. Parts by queries are as even as one wants them; parts by block or
by bucket are as uneven as the hashes.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from math import ceil

import numpy as np

from workers.pixels.hamming import (
    Indices,
    Layout,
    Matches,
    Words,
    compare_all,
    match_block,
    matches,
    matches_within,
)
from workers.spreading import Spread, here

NOTHING = np.iinfo(np.int64).max
"""The nearest of a query that has nothing near it."""

_PART_NS = 1.5e9
"""Estimated nanoseconds of a part, and half of what is worth other processes: they need a second
to start, and about a tenth of that to be handed a part."""
_INDEX_NS = 150.0
"""Nanoseconds a word to sort a block, once a part."""
_INDEX_SHARE = 0.1
"""Share of a part's time that this may take."""
_UNEQUAL = np.int64(1) << np.int64(40)
"""Added to the rank of a key that is near, not equal."""
_HALF, _LOW = np.uint64(32), np.uint64(2**32 - 1)


class TooManyPairs(Exception):
    """There are more near pairs than the caller wants to hold in memory."""


@dataclass(frozen=True)
class Search:
    """Words to look up among others, distinct or nearly so, arranged by the layout.

    There are fewer than 2^32 on each side.
    """

    queries: Words
    keys: Words | None
    """None: the queries themselves, each pair once."""
    layout: Layout


@dataclass(frozen=True)
class Part:
    """Some queries of a search, looked up in one block, or compared with all keys."""

    block: int | None
    rows: slice


def near_pairs(
    search: Search, *, limit: int | None = None, spread: Spread = here
) -> Generator[Matches]:
    """Yield (query, key) index arrays of all pairs within the distance, each pair once.

    Within the queries, query < key. Raises TooManyPairs beyond `limit` pairs.
    """
    parts = _parts(search, spread)
    found: Generator[Matches]
    if parts:
        found = (unpack(part) for part in spread(_list_part, (search, limit), parts))
    else:
        found = (part for part in _whole(search))
    count = 0
    with closing(found):
        for part in found:
            count += len(part[0])
            if limit is not None and count > limit:
                raise TooManyPairs(f"more than {limit} pairs")
            yield part


def nearest(search: Search, *, spread: Spread = here) -> Indices:
    """Return, for each query, the first key equal to it, or else near it, or else NOTHING."""
    best = np.full(len(search.queries), NOTHING)
    parts = _parts(search, spread)
    if parts:
        for query, rank in spread(_nearest_part, search, parts):
            best[query] = np.minimum(best[query], rank)
    else:
        _note_nearest(best, search, _whole(search))
    return np.where(best == NOTHING, NOTHING, best % _UNEQUAL)


def _whole(search: Search) -> Iterator[Matches]:
    if search.keys is None:
        return matches_within(search.queries, search.layout)
    return matches(search.queries, search.keys, search.layout)


def _parts(search: Search, spread: Spread) -> list[Part]:
    """Cut a search into parts of about equal cost; none where it is too small to be cut."""
    queries = len(search.queries)
    keys = None if search.keys is None else len(search.keys)
    if spread is here or not queries:
        return []
    costs: list[tuple[int | None, float]] = list(enumerate(search.layout.costs_ns(queries, keys)))
    if keys is not None and search.layout.compares_all(keys):
        costs = [(None, float(queries * keys))]
    sorting = (queries + (keys or 0)) * _INDEX_NS
    part_ns = max(_PART_NS, sorting / _INDEX_SHARE)
    if sum(cost for _, cost in costs) < 2 * part_ns:
        return []
    parts = []
    for block, cost in costs:
        count = min(queries, ceil(cost / part_ns))
        ends = [queries * number // count for number in range(count + 1)]
        parts += [Part(block, slice(*ends[number : number + 2])) for number in range(count)]
    return parts


def _matches_of(search: Search, part: Part) -> Iterator[Matches]:
    if part.block is not None:
        return match_block(search.queries, search.keys, search.layout, part.block, part.rows)
    keys = search.queries if search.keys is None else search.keys
    return compare_all(search.queries, keys, search.layout.distance, part.rows)


def _list_part(shared: tuple[Search, int | None], part: Part) -> Words:
    """Return the pairs of a part, each as query * 2^32 + key; a few beyond the limit at most."""
    search, limit = shared
    packed = [np.empty(0, np.uint64)]
    count = 0
    for query, key in _matches_of(search, part):
        packed.append(pack(query, key))
        count += len(query)
        if limit is not None and count > limit:
            break
    return np.concatenate(packed)


def _nearest_part(search: Search, part: Part) -> Matches:
    """Return the queries of a part that found something, and the least rank of what each did."""
    best = np.full(len(search.queries), NOTHING)
    _note_nearest(best, search, _matches_of(search, part))
    found = np.flatnonzero(best != NOTHING)
    return found, best[found]


def _note_nearest(best: Indices, search: Search, found: Iterator[Matches]) -> None:
    keys = search.queries if search.keys is None else search.keys
    for query, key in found:
        unequal = search.queries[query] != keys[key]
        np.minimum.at(best, query, key + unequal * _UNEQUAL)


def pack(i: Indices, j: Indices) -> Words:
    """Return pairs of indices below 2^32 as one number each, i * 2^32 + j."""
    packed: Words = (i.astype(np.uint64) << _HALF) | j.astype(np.uint64)
    return packed


def unpack(packed: Words) -> Matches:
    """Return the pairs of indices that were packed."""
    return (packed >> _HALF).astype(np.int64), (packed & _LOW).astype(np.int64)
