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
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_DISTANCE = 8
"""The largest distance the layouts are made for."""
_BITS = 64
_CHUNK = 1 << 16
"""Candidates compared at a time: few enough that their arrays stay in the cache."""
_SAMPLE = 256
"""Words of each side whose pairs estimate how often a block collides."""
_TABLE_COST, _SEARCH_COST, _CANDIDATE_COST, _DENSE_COST = 6.0, 100.0, 8.0, 1.0
"""Nanoseconds for one mask of one query (with a table of the block's values, and without), one
candidate, one pair when all are compared."""
_TABLE_WIDTH, _TABLE_SPARSITY = 24, 16
"""A block's table has at most 2^24 values, and at most 16 a key."""

Words = NDArray[np.uint64]
Indices = NDArray[np.int64]
Matches = tuple[Indices, Indices]
Places = NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class Block:
    """Some adjacent bits of an arranged word."""

    shift: int
    width: int
    radius: int
    collide: float
    """Estimated share of all pairs of words that agree here to within the radius."""


@dataclass(frozen=True)
class Layout:
    """How the bits of a word are dealt out: `order` groups the bits of each block."""

    distance: int
    order: NDArray[np.intp]
    """(64,) bit positions, counted from the most significant."""
    blocks: tuple[Block, ...]

    @staticmethod
    def choose(words: Words, distance: int, keys: int | None = None) -> "Layout":
        """Return the layout with the least estimated cost for pairs within `words`.

        With `keys`, for pairs of `words` and that many others. Raises ValueError unless
        0 <= distance <= 8.
        """
        if not 0 <= distance <= MAX_DISTANCE:
            raise ValueError(f"Hamming distance must be 0 to {MAX_DISTANCE}: got {distance}")
        sample = words[:: max(1, len(words) // _SAMPLE)][:_SAMPLE]
        differ = _unpack((sample[:, None] ^ sample[None, :])[np.triu_indices(len(sample), 1)])
        if not len(differ):
            differ = np.zeros((1, _BITS), np.uint8)
        options = [_lay_out(differ, distance, radii) for radii in _radii(distance)]
        return min(options, key=lambda option: sum(option.costs_ns(len(words), keys)))

    def costs_ns(self, queries: int, keys: int | None) -> list[float]:
        """Estimate the nanoseconds that each block takes; keys None means within the queries."""
        pairs = queries * queries / 2 if keys is None else queries * keys
        return [
            _lookup_cost(block, queries if keys is None else keys) * queries
            + block.collide * pairs * _CANDIDATE_COST
            for block in self.blocks
        ]

    def compares_all(self, keys: int) -> bool:
        """Tell whether looking a word up costs more than comparing it with all of so many keys."""
        return keys * _DENSE_COST <= sum(_lookup_cost(block, keys) for block in self.blocks)

    def arrange(self, words: Words) -> Words:
        """Return the words with their bits in the layout's order; distances stay the same."""
        # Where each value of each byte goes: eight look-ups a word instead of sixty-four bits.
        octets = np.arange(_BITS // 8, dtype=np.uint64)[:, None] * np.uint64(8)
        tables = self._move_bits((np.arange(256, dtype=np.uint64) << octets).ravel())
        arranged = np.zeros(len(words), np.uint64)
        for octet, table in enumerate(tables.reshape(-1, 256)):
            arranged |= table.take((words >> np.uint64(8 * octet)).astype(np.uint8))
        return arranged

    def _move_bits(self, words: Words) -> Words:
        packed = np.packbits(np.take(_unpack(words), self.order, axis=1), axis=1)
        return packed.view(">u8").ravel().astype(np.uint64)


def matches(queries: Words, keys: Words, layout: Layout) -> Iterator[Matches]:
    """Yield (query, key) index arrays of all pairs within the layout's distance, each pair once.

    Both sides are arranged by the layout.
    """
    if layout.compares_all(len(keys)):
        yield from compare_all(queries, keys, layout.distance)
        return
    for number in range(len(layout.blocks)):
        yield from match_block(queries, keys, layout, number)


def matches_within(words: Words, layout: Layout) -> Iterator[Matches]:
    """Yield (i, j) index arrays, i < j, of all pairs within the layout's distance, each once.

    `words` are distinct or nearly so, and arranged by the layout.
    """
    for number in range(len(layout.blocks)):
        yield from match_block(words, None, layout, number)


def compare_all(
    queries: Words, keys: Words, distance: int, rows: slice = slice(None)
) -> Iterator[Matches]:
    """Yield what `matches` does, from the comparison of the queries in `rows` with each key."""
    first, stop, _ = rows.indices(len(queries))
    step = max(1, _CHUNK // max(1, len(keys)))
    for start in range(first, stop, step):
        part = queries[start : min(start + step, stop), None]
        query, key = np.nonzero(np.bitwise_count(part ^ keys) <= distance)
        yield query + start, key


def match_block(
    queries: Words,
    keys: Words | None,
    layout: Layout,
    number: int,
    rows: slice = slice(None),
) -> Iterator[Matches]:
    """Yield the pairs found in one block and in no earlier one; keys None means the queries.

    Only the queries in `rows` are looked up, counted in the order of their values in the block.
    """
    block = layout.blocks[number]
    query_values, query_words, query_order = _sorted_by(block, queries)
    key_values, key_words, key_order = query_values, query_words, query_order
    if keys is not None:
        key_values, key_words, key_order = _sorted_by(block, keys)
    find = _Buckets.of(key_values, block.width)
    first, stop, _ = rows.indices(len(queries))
    wanted = query_values[first:stop]
    for mask in _masks(block.width, block.radius):
        low, high = find(wanted ^ mask)
        if keys is None and mask == 0:
            low = np.arange(first + 1, stop + 1)
        elif keys is None:
            high = np.where(wanted & (mask & -mask), low, high)
        for at, position in _runs(low, high - low):
            query = at + first
            differ = query_words[query] ^ key_words[position]
            near = np.flatnonzero(np.bitwise_count(differ) <= layout.distance)
            near = near[_first_found(differ[near], layout, number)]
            if len(near):
                i, j = query_order[query[near]], key_order[position[near]]
                yield (i, j) if keys is not None else (np.minimum(i, j), np.maximum(i, j))


def _sorted_by(block: Block, words: Words) -> tuple[Indices, Words, Indices]:
    """Return the block's values in ascending order, their words, and where these stood."""
    values = _values(words, block)
    order = np.argsort(values)
    return values[order], words[order], order


def _runs(low: Places, count: Places) -> Iterator[tuple[Indices, Indices]]:
    """Yield (row, position) for position in low[row] .. low[row] + count[row], in chunks."""
    rows = np.flatnonzero(count != 0)
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
    for block in layout.blocks[:number]:
        first &= np.bitwise_count(_values(differ, block)) > block.radius
    return first


@dataclass(frozen=True)
class _Buckets:
    """Where the sorted block values that equal a given one begin and end."""

    values: Indices
    starts: Places | None
    """Begin of every possible value, where a table of them is not much larger than the keys."""

    @staticmethod
    def of(values: Indices, width: int) -> "_Buckets":
        if not _has_table(width, len(values)):
            return _Buckets(values, None)
        starts = np.zeros((1 << width) + 1, np.int64)
        np.cumsum(np.bincount(values, minlength=1 << width), out=starts[1:])
        # Half the width is a third of the time: look-ups wait for memory.
        small = len(values) <= np.iinfo(np.int32).max
        return _Buckets(values, starts.astype(np.int32) if small else starts)

    def __call__(self, wanted: Indices) -> tuple[Places, Places]:
        if self.starts is not None:
            return self.starts[:-1].take(wanted), self.starts[1:].take(wanted)
        low = np.searchsorted(self.values, wanted, side="left")
        return low, np.searchsorted(self.values, wanted, side="right")


def _values(words: Words, block: Block) -> Indices:
    # A block without bits may begin beyond the word.
    kept = words >> np.uint64(block.shift) if block.shift < _BITS else words
    return (kept & np.uint64((1 << block.width) - 1)).astype(np.int64)


def _masks(width: int, radius: int) -> Iterator[int]:
    for size in range(radius + 1):
        for bits in combinations(range(width), size):
            yield sum(1 << bit for bit in bits)


def _ball(width: int, radius: int) -> int:
    return sum(comb(width, size) for size in range(radius + 1))


def _has_table(width: int, keys: int) -> bool:
    return width <= _TABLE_WIDTH and 1 << width <= _TABLE_SPARSITY * keys


def _lookup_cost(block: Block, keys: int) -> float:
    """Nanoseconds to look one word up among so many keys."""
    each = _TABLE_COST if _has_table(block.width, keys) else _SEARCH_COST
    return _ball(block.width, block.radius) * each


def _unpack(words: Words) -> NDArray[np.uint8]:
    return np.unpackbits(words.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)


def _radii(distance: int) -> Iterator[tuple[int, ...]]:
    """Yield radii of the layouts worth a look, with 2 or more blocks for any distance but 0.

    Blocks are thus narrower than a word, and their values and masks fit signed 64-bit numbers.
    """
    for blocks in range(max(2, (distance + 3) // 3) if distance else 1, distance + 2):
        low, extra = divmod(distance - blocks + 1, blocks)
        yield (low + 1,) * extra + (low,) * (blocks - extra)


def _lay_out(differ: NDArray[np.uint8], distance: int, radii: tuple[int, ...]) -> Layout:
    groups = _deal(differ, radii)
    blocks, end = [], _BITS
    for group, radius in zip(groups, radii, strict=True):
        end -= len(group)
        seen = float((differ[:, group].sum(axis=1) <= radius).mean())
        collide = seen + _ball(len(group), radius) / 2.0 ** len(group)
        blocks.append(Block(end, len(group), radius, collide))
    order = np.array([bit for group in groups for bit in group], np.intp)
    return Layout(distance, order, tuple(blocks))


def _deal(differ: NDArray[np.uint8], radii: tuple[int, ...]) -> list[list[int]]:
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
    return groups
