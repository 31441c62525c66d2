"""Exact neighbours among perceptual hashes, and the rule that drops near-duplicates.

Equal hashes are the danger: ten thousand blank images are fifty million pairs. Each function
works on the distinct hashes and treats equal ones as a class, led by its first member.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.pixels.hamming import Indices, Layout, Matches, Words, matches, matches_within

_FEW = 1024
"""Up to so many hashes are settled by comparing all of them."""
_PAIRS_EACH = 8
"""Near pairs a hash up to which all of them are listed."""
_NONE = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Pairs:
    """Pairs of indices with their Hamming distance, sorted by (i, j)."""

    i: Indices
    j: Indices
    distance: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.i)


@dataclass(frozen=True)
class EqualHashes:
    """The classes of equal hashes, in order of first appearance."""

    first: Indices
    """(C,) index of the first member of each class, ascending."""
    label: Indices
    """(N,) class of each hash."""

    @property
    def sizes(self) -> Indices:
        """(C,) members of each class."""
        return np.bincount(self.label, minlength=len(self.first)).astype(np.int64)


def equal_hashes(hashes: Words) -> EqualHashes:
    """Return the classes of equal hashes."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return EqualHashes(first=first[order].astype(np.int64), label=rank[inverse.ravel()])


class TooManyPairs(Exception):
    """There are more near pairs than the caller wants to hold in memory."""


def pairs(
    hashes: Words, distance: int, against: Words | None = None, *, limit: int | None = None
) -> Pairs:
    """Return all pairs of first members of classes within `distance`, and the classes themselves.

    Within `hashes`, i < j: a later member of a class is paired with the first one of its class
    only, at distance 0, and with nobody else; so the pairs connect what all pairs would connect,
    and a class of n costs n - 1. With `against`, i counts in `hashes` and j in `against`, and
    only first members stand in the pairs, at any distance from 0.

    Raises ValueError unless 0 <= distance <= 8, and TooManyPairs beyond `limit` pairs of distinct
    hashes. Memory is that of the result, about 50 bytes a pair, plus 0.1 GB a million hashes.
    """
    classes = equal_hashes(hashes)
    distinct = hashes[classes.first]
    layout = Layout.choose(distinct, distance)
    distinct = layout.arrange(distinct)
    if against is None:
        i, j = _collect(matches_within(distinct, layout), limit)
        later = np.flatnonzero(classes.first[classes.label] != np.arange(len(hashes)))
        i = np.concatenate([classes.first[i], classes.first[classes.label[later]]])
        j = np.concatenate([classes.first[j], later])
        distances = np.bitwise_count(hashes[i] ^ hashes[j])
    else:
        others = equal_hashes(against)
        found = matches(distinct, layout.arrange(against[others.first]), layout)
        i, j = _collect(found, limit)
        i, j = classes.first[i], others.first[j]
        distances = np.bitwise_count(hashes[i] ^ against[j])
    order = np.lexsort((j, i))
    return Pairs(i[order], j[order], distances[order])


@dataclass(frozen=True)
class Kept:
    """What the rule found; indices count through those kept before, then through the hashes."""

    duplicate_of: Indices
    """(N,) the kept one that a hash duplicates, -1 where the hash is kept."""
    distance: NDArray[np.uint8]
    """(N,) Hamming distance to it, 0 where the hash is kept."""


def keep_in_order(hashes: Words, distance: int, kept_before: Words | None = None) -> Kept:
    """Walk the hashes in order and drop each one that lies within `distance` of one kept already.

    A dropped hash is a duplicate of the first kept one within `distance` (of an equal one, if
    there is one). Those in `kept_before` are kept whatever they hold: index len(kept_before) is
    hashes[0]. Chains don't grow: a neighbour of a dropped hash stays unless it lies near a kept
    one itself. Raises ValueError unless 0 <= distance <= 8.

    Memory is about 0.3 GB a million hashes, however dense they lie.
    """
    before = np.empty(0, np.uint64) if kept_before is None else kept_before
    everything = np.concatenate([before, hashes])
    classes = equal_hashes(everything)
    distinct = everything[classes.first]
    layout = Layout.choose(distinct, distance)
    walk = _Walk(
        words=layout.arrange(distinct),
        layout=layout,
        kept=classes.first < len(before),
        nearest=np.full(len(distinct), _NONE),
    )
    forced = np.count_nonzero(walk.kept)
    walk.settle(walk.drop_near(np.arange(forced), np.arange(forced, len(distinct))))

    target = classes.first[np.where(walk.kept, np.arange(len(distinct)), walk.nearest)]
    own = np.arange(len(before), len(everything))
    duplicate_of = target[classes.label[own]]
    distances = np.bitwise_count(everything[duplicate_of] ^ hashes)
    return Kept(np.where(duplicate_of == own, -1, duplicate_of), distances)


@dataclass(frozen=True)
class _Walk:
    """The state of the rule over distinct hashes; `kept` and `nearest` are filled in place."""

    words: Words
    layout: Layout
    kept: NDArray[np.bool_]
    nearest: Indices
    """The first kept one within the distance, _NONE where none is known."""

    def drop_near(self, kept: Indices, todo: Indices) -> Indices:
        """Note the first of `kept` near each of `todo`; return those that have none."""
        for query, key in matches(self.words[todo], self.words[kept], self.layout):
            np.minimum.at(self.nearest, todo[query], kept[key])
        left: Indices = todo[self.nearest[todo] == _NONE]
        return left

    def settle(self, todo: Indices) -> None:
        """Apply the rule to `todo`, in order.

        Where near pairs are few, all of them are listed first. Otherwise the first half is
        settled, and then what it leaves of the rest: what the first half drops, it drops for an
        earlier hash than any of the second half, so `nearest` ends as the first kept one.
        """
        found = self._near_pairs(todo)
        if found is not None:
            self._settle_pairs(todo, *found)
            return
        half = len(todo) // 2
        self.settle(todo[:half])
        settled = todo[:half][self.kept[todo[:half]]]
        self.settle(self.drop_near(settled, todo[half:]))

    def _near_pairs(self, todo: Indices) -> Matches | None:
        """List the near pairs within `todo`, by position; None if they are many."""
        words = self.words[todo]
        if len(todo) <= _FEW:
            near = np.bitwise_count(words[:, None] ^ words[None, :]) <= self.layout.distance
            earlier, later = np.nonzero(np.triu(near, 1))
            return earlier, later
        try:
            return _collect(matches_within(words, self.layout), _PAIRS_EACH * len(todo))
        except TooManyPairs:
            return None

    def _settle_pairs(self, todo: Indices, earlier: Indices, later: Indices) -> None:
        order = np.lexsort((earlier, later))
        earlier = earlier[order]
        rows, starts, counts = np.unique(later[order], return_index=True, return_counts=True)
        kept = np.ones(len(todo), np.bool_)
        for row, start, count in zip(rows, starts, counts, strict=True):
            near = earlier[start : start + count]
            near = near[kept[near]]
            if len(near):
                kept[row] = False
                self.nearest[todo[row]] = todo[near[0]]
        self.kept[todo] = kept


def _collect(found: Iterable[Matches], limit: int | None) -> Matches:
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    count = 0
    for part in found:
        count += len(part[0])
        if limit is not None and count > limit:
            raise TooManyPairs(f"more than {limit} pairs")
        parts.append(part)
    return np.concatenate([i for i, _ in parts]), np.concatenate([j for _, j in parts])
