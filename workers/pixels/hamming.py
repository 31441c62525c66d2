"""Enumeration of all pairs of 64-bit words within a small Hamming distance, in bounded memory.

The 64 bits are dealt out to m blocks, and block k gets a radius r_k with
sum(r_k) = d - m + 1. Two words that differed by more than r_k in every block would differ by at
least sum(r_k + 1) = d + 1, so every pair within d agrees in some block to within its radius
(the general pigeonhole principle of Qin et al., GPH, ICDE 2018; equal radii are Norouzi et al.,
Fast Exact Search in Hamming Space, CVPR 2012). Looking up a word's block with every mask of up
to r_k bits gives candidates, and their distance decides: nothing is approximate.

How many blocks, and which bits go where, only changes the speed. Both are chosen by cost on a
sample, since the bits of perceptual hashes are neither fair nor independent.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

MAX_DISTANCE = 8
"""The largest distance the layouts are made for."""
_BITS = 64
_CHUNK = 1 << 16
"""Candidates compared at a time: few enough that their arrays stay in the cache."""
_SAMPLE = 256
"""Words of each side whose pairs estimate how often a block collides."""
_TABLE_COST, _SEARCH_COST, _CANDIDATE_COST, _DENSE_COST = 12.0, 100.0, 8.0, 1.0
"""Nanoseconds for one mask of one query (with a table of the block's values, and without), one
candidate, one pair when all are compared."""
_TABLE_WIDTH, _TABLE_SPARSITY = 24, 16
"""A block's table has at most 2^24 values, and at most 16 a key."""

Words = NDArray[np.uint64]
Indices = NDArray[np.int64]
Matches = tuple[Indices, Indices]


@dataclass(frozen=True)
class Layout:
    """How the bits of a word are dealt out: `order` groups the bits of each block."""

    distance: int
    order: NDArray[np.intp]
    """(64,) bit positions, counted from the most significant."""
    blocks: tuple[tuple[int, int, int], ...]
    """(shift, width, radius) of each block, in a word whose bits stand in `order`."""

    @staticmethod
    def choose(words: Words, distance: int) -> "Layout":
        """Return the layout with the least estimated cost for pairs within `words`.

        Raises ValueError unless 0 <= distance <= 8.
        """
        if not 0 <= distance <= MAX_DISTANCE:
            raise ValueError(f"Hamming distance must be 0 to {MAX_DISTANCE}: got {distance}")
        sample = words[:: max(1, len(words) // _SAMPLE)][:_SAMPLE]
        differ = _unpack((sample[:, None] ^ sample[None, :])[np.triu_indices(len(sample), 1)])
        if not len(differ):
            differ = np.zeros((1, _BITS), np.uint8)
        options = [_deal(differ, radii) for radii in _radii(distance)]
        costs = [_cost(differ, groups, radii, len(words)) for groups, radii in options]
        groups, radii = options[int(np.argmin(costs))]
        ends = np.cumsum([len(group) for group in groups])
        blocks = zip(ends, map(len, groups), radii, strict=True)
        return Layout(
            distance=distance,
            order=np.array([bit for group in groups for bit in group], np.intp),
            blocks=tuple((int(_BITS - end), width, radius) for end, width, radius in blocks),
        )

    def arrange(self, words: Words) -> Words:
        """Return the words with their bits in the layout's order; distances stay the same."""
        packed = np.packbits(np.take(_unpack(words), self.order, axis=1), axis=1)
        return packed.view(">u8").ravel().astype(np.uint64)


def matches(queries: Words, keys: Words, layout: Layout) -> Iterator[Matches]:
    """Yield (query, key) index arrays of all pairs within the layout's distance, each pair once.

    Both sides are arranged by the layout.
    """
    lookups = sum(_lookup_cost(width, r, len(keys)) for _, width, r in layout.blocks)
    if len(keys) * _DENSE_COST <= lookups:
        yield from _compare_all(queries, keys, layout.distance)
        return
    for number in range(len(layout.blocks)):
        yield from _match_block(queries, keys, layout, number)


def matches_within(words: Words, layout: Layout) -> Iterator[Matches]:
    """Yield (i, j) index arrays, i < j, of all pairs within the layout's distance, each once.

    `words` are distinct or nearly so, and arranged by the layout.
    """
    for number in range(len(layout.blocks)):
        for i, j in _match_block(words, None, layout, number):
            yield np.minimum(i, j), np.maximum(i, j)


def _compare_all(queries: Words, keys: Words, distance: int) -> Iterator[Matches]:
    step = max(1, _CHUNK // max(1, len(keys)))
    for start in range(0, len(queries), step):
        near = np.bitwise_count(queries[start : start + step, None] ^ keys) <= distance
        query, key = np.nonzero(near)
        yield query + start, key


def _match_block(
    queries: Words, keys: Words | None, layout: Layout, number: int
) -> Iterator[Matches]:
    """Yield the pairs found in one block and in no earlier one; keys None means the queries."""
    shift, width, radius = layout.blocks[number]
    own_query = _block(queries, shift, width)
    query_order = np.argsort(own_query, kind="stable")
    own_query, query_words = own_query[query_order], queries[query_order]
    if keys is None:
        own_key, key_words, key_order = own_query, query_words, query_order
    else:
        own_key = _block(keys, shift, width)
        key_order = np.argsort(own_key, kind="stable")
        own_key, key_words = own_key[key_order], keys[key_order]
    find = _Buckets.of(own_key, width)
    for mask in _masks(width, radius):
        low, high = find(own_query ^ mask)
        if keys is None and mask == 0:
            low = np.arange(1, len(queries) + 1)
        elif keys is None:
            high = np.where(own_query & (mask & -mask), low, high)
        for at, position in _runs(low, high - low):
            differ = query_words[at] ^ key_words[position]
            near = np.flatnonzero(np.bitwise_count(differ) <= layout.distance)
            near = near[_first_found(differ[near], layout, number)]
            if len(near):
                yield query_order[at[near]], key_order[position[near]]


def _runs(low: Indices, count: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Yield (row, position) for position in low[row] .. low[row] + count[row], in chunks."""
    rows = np.flatnonzero(count)
    ends = np.cumsum(count[rows])
    done = 0
    while done < len(rows):
        before = int(ends[done - 1]) if done else 0
        stop = max(done + 1, int(np.searchsorted(ends, before + _CHUNK, side="right")))
        part = rows[done:stop]
        counts = count[part]
        skip = low[part] - (ends[done:stop] - counts - before)
        yield (
            np.repeat(part, counts),
            np.arange(int(ends[stop - 1]) - before) + np.repeat(skip, counts),
        )
        done = stop


def _first_found(differ: Words, layout: Layout, number: int) -> NDArray[np.bool_]:
    """Tell which differences no earlier block has found."""
    first = np.ones(len(differ), np.bool_)
    for shift, width, radius in layout.blocks[:number]:
        first &= np.bitwise_count(_block(differ, shift, width)) > radius
    return first


@dataclass(frozen=True)
class _Buckets:
    """Where the sorted block values that equal a given one begin and end."""

    values: Indices
    starts: Indices | None
    """Begin of every possible value, where a table of them is no larger than the keys."""

    @staticmethod
    def of(values: Indices, width: int) -> "_Buckets":
        if not _has_table(width, len(values)):
            return _Buckets(values, None)
        counts = np.bincount(values, minlength=1 << width)
        return _Buckets(values, np.concatenate([[0], np.cumsum(counts)]))

    def __call__(self, wanted: Indices) -> tuple[Indices, Indices]:
        if self.starts is not None:
            return self.starts[wanted], self.starts[wanted + 1]
        low = np.searchsorted(self.values, wanted, side="left")
        return low, np.searchsorted(self.values, wanted, side="right")


def _block(words: Words, shift: int, width: int) -> Indices:
    if width == 0:
        return np.zeros(len(words), np.int64)
    return ((words >> np.uint64(shift)) & np.uint64((1 << width) - 1)).astype(np.int64)


def _masks(width: int, radius: int) -> Iterator[int]:
    for size in range(radius + 1):
        for bits in combinations(range(width), size):
            yield sum(1 << bit for bit in bits)


def _ball(width: int, radius: int) -> int:
    return sum(comb(width, size) for size in range(radius + 1))


def _has_table(width: int, keys: int) -> bool:
    return width <= _TABLE_WIDTH and 1 << width <= _TABLE_SPARSITY * keys


def _lookup_cost(width: int, radius: int, keys: int) -> float:
    return _ball(width, radius) * (_TABLE_COST if _has_table(width, keys) else _SEARCH_COST)


def _unpack(words: Words) -> NDArray[np.uint8]:
    return np.unpackbits(words.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)


def _radii(distance: int) -> Iterator[tuple[int, ...]]:
    """Yield radii of the layouts worth a look, with 2 or more blocks for any distance but 0.

    Blocks are thus narrower than a word, and their values and masks fit signed 64-bit numbers.
    """
    for blocks in range(max(2, (distance + 3) // 3) if distance else 1, distance + 2):
        low, extra = divmod(distance - blocks + 1, blocks)
        yield (low + 1,) * extra + (low,) * (blocks - extra)


def _deal(
    differ: NDArray[np.uint8], radii: tuple[int, ...]
) -> tuple[list[list[int]], tuple[int, ...]]:
    """Deal the bits, the fairest first, each to the block that collides most so far."""
    groups: list[list[int]] = [[] for _ in radii]
    counts = np.zeros((len(radii), len(differ)), np.uint8)
    limits = np.array(radii)
    load = np.array([float(1 + radius) for radius in radii])
    for bit in np.argsort(np.abs(differ.mean(axis=0) - 0.5), kind="stable"):
        block = int(np.argmax(load))
        groups[block].append(int(bit))
        counts[block] += differ[:, bit]
        collide = np.count_nonzero(counts[block] <= limits[block])
        load[block] = (collide + 0.5 ** len(groups[block])) / (len(differ) + 1)
    return groups, radii


def _cost(
    differ: NDArray[np.uint8], groups: list[list[int]], radii: tuple[int, ...], count: int
) -> float:
    """Estimate the nanoseconds it takes to match `count` words among themselves."""
    cost = 0.0
    for group, radius in zip(groups, radii, strict=True):
        width = len(group)
        seen = float((differ[:, group].sum(axis=1) <= radius).mean())
        collide = seen + _ball(width, radius) / 2.0**width
        cost += _lookup_cost(width, radius, count) * count
        cost += collide * count * count / 2 * _CANDIDATE_COST
    return cost
