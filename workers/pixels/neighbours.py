"""Exact neighbours among perceptual hashes, and the rule that drops near-duplicates.

Equal hashes are the danger: ten thousand blank images are fifty million pairs. Each function
works on the distinct hashes and treats equal ones as a class, led by its first member.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.pixels.hamming import Indices, Layout, Words
from workers.pixels.search import (
    NOTHING,
    Search,
    TooManyPairs,
    near_pairs,
    nearest,
    pack,
    unpack,
)
from workers.spreading import Spread, here

__all__ = ["EqualHashes", "Kept", "Pairs", "TooManyPairs", "equal_hashes", "keep_in_order", "pairs"]

_FEW = 1024
"""Up to so many hashes are settled by comparing all of them."""
_PAIRS_EACH = 8
"""Near pairs a hash up to which all of them are listed."""
_CHUNK = 1 << 20
"""Pairs whose distance is computed at a time."""


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
    order = np.argsort(hashes)
    ordered = hashes[order]
    new = np.ones(len(hashes), np.bool_)
    new[1:] = ordered[1:] != ordered[:-1]
    leaders = np.minimum.reduceat(order, np.flatnonzero(new)) if len(hashes) else order
    # Leaders in the order in which they appear number the classes.
    leads = np.zeros(len(hashes), np.int64)
    leads[leaders] = 1
    label = np.empty(len(hashes), np.int64)
    label[order] = (np.cumsum(leads) - 1)[leaders][np.cumsum(new) - 1]
    return EqualHashes(first=np.flatnonzero(leads), label=label)


def pairs(
    hashes: Words,
    distance: int,
    against: Words | None = None,
    *,
    limit: int | None = None,
    spread: Spread = here,
) -> Pairs:
    """Return all pairs of first members of classes within `distance`, and the classes themselves.

    Within `hashes`, i < j: a later member of a class is paired with the first one of its class
    only, at distance 0, and with nobody else; so the pairs connect what all pairs would connect,
    and a class of n costs n - 1. With `against`, i counts in `hashes` and j in `against`, and
    only first members stand in the pairs, at any distance from 0.

    A search of some seconds is cut into parts for `spread`, with the same result. Raises
    ValueError unless 0 <= distance <= 8, and TooManyPairs beyond `limit` pairs of distinct
    hashes. Memory is about 40 bytes a pair, plus 0.15 GB a million hashes.
    """
    classes = equal_hashes(hashes)
    distinct = hashes[classes.first]
    others, other_classes = hashes, classes
    if against is None:
        layout = Layout.choose(distinct, distance)
        search = Search(layout.arrange(distinct), None, layout)
    else:
        others, other_classes = against, equal_hashes(against)
        layout = Layout.choose(distinct, distance, keys=len(other_classes.first))
        keys = layout.arrange(against[other_classes.first])
        search = Search(layout.arrange(distinct), keys, layout)
    packed = [
        pack(classes.first[i], other_classes.first[j])
        for i, j in near_pairs(search, limit=limit, spread=spread)
    ]
    if against is None:
        leader = classes.first[classes.label]
        later = np.flatnonzero(leader != np.arange(len(hashes)))
        packed.append(pack(leader[later], later))
    return _pairs_of(packed, hashes, others)


def _pairs_of(packed: list[Words], hashes: Words, others: Words) -> Pairs:
    """Sort packed pairs, which are taken out of the list, and add their distances."""
    together = np.concatenate([np.empty(0, np.uint64), *packed])
    packed.clear()
    together.sort()
    i, j = unpack(together)
    distance = np.empty(len(i), np.uint8)
    for start in range(0, len(i), _CHUNK):
        part = slice(start, start + _CHUNK)
        distance[part] = np.bitwise_count(hashes[i[part]] ^ others[j[part]])
    return Pairs(i, j, distance)


@dataclass(frozen=True)
class Kept:
    """What the rule found; indices count through those kept before, then through the hashes."""

    duplicate_of: Indices
    """(N,) the kept one that a hash duplicates, -1 where the hash is kept."""
    distance: NDArray[np.uint8]
    """(N,) Hamming distance to it, 0 where the hash is kept."""


def keep_in_order(
    hashes: Words, distance: int, kept_before: Words | None = None, *, spread: Spread = here
) -> Kept:
    """Walk the hashes in order and drop each one that lies within `distance` of one kept already.

    A dropped hash is a duplicate of the first kept one within `distance` (of an equal one, if
    there is one). Those in `kept_before` are kept whatever they hold: index len(kept_before) is
    hashes[0]. Chains don't grow: a neighbour of a dropped hash stays unless it lies near a kept
    one itself. Raises ValueError unless 0 <= distance <= 8.

    A search of some seconds is cut into parts for `spread`, with the same result. Memory is about
    0.3 GB a million hashes, however dense they lie.
    """
    before = np.empty(0, np.uint64) if kept_before is None else kept_before
    classes = equal_hashes(hashes)
    distinct = hashes[classes.first]
    target = _near_old(distinct, before, distance, spread)
    todo = np.flatnonzero(target == NOTHING)

    layout = Layout.choose(distinct[todo], distance)
    walk = _Walk(
        words=layout.arrange(distinct[todo]),
        layout=layout,
        kept=np.zeros(len(todo), np.bool_),
        nearest=np.full(len(todo), NOTHING),
        spread=spread,
    )
    walk.settle(np.arange(len(todo)))
    original = np.where(walk.kept, np.arange(len(todo)), walk.nearest)
    target[todo] = len(before) + classes.first[todo[original]]

    own = np.arange(len(before), len(before) + len(hashes))
    duplicate_of = target[classes.label]
    distances = np.bitwise_count(np.concatenate([before, hashes])[duplicate_of] ^ hashes)
    return Kept(np.where(duplicate_of == own, -1, duplicate_of), distances)


def _near_old(words: Words, old: Words, distance: int, spread: Spread) -> Indices:
    """Return the first of `old` equal to each word, or else near it, or else NOTHING."""
    classes = equal_hashes(old)
    layout = Layout.choose(words, distance, keys=len(classes.first))
    if not len(old):
        return np.full(len(words), NOTHING)
    keys = layout.arrange(old[classes.first])
    found = nearest(Search(layout.arrange(words), keys, layout), spread=spread)
    near = found != NOTHING
    found[near] = classes.first[found[near]]
    return found


@dataclass(frozen=True)
class _Walk:
    """The state of the rule over distinct hashes; `kept` and `nearest` are filled in place."""

    words: Words
    layout: Layout
    kept: NDArray[np.bool_]
    nearest: Indices
    """The first kept one within the distance, NOTHING where none is known."""
    spread: Spread

    def drop_near(self, kept: Indices, todo: Indices) -> Indices:
        """Note the first of `kept`, ascending, near each of `todo`; return those without one."""
        search = Search(self.words[todo], self.words[kept], self.layout)
        found = nearest(search, spread=self.spread)
        near = found != NOTHING
        self.nearest[todo[near]] = kept[found[near]]
        left: Indices = todo[~near]
        return left

    def settle(self, todo: Indices) -> None:
        """Apply the rule to `todo`, in order.

        Where near pairs are few, all of them are listed first. Otherwise the first half is
        settled, and then what it leaves of the rest: what the first half drops, it drops for an
        earlier hash than any of the second half, so `nearest` ends as the first kept one.
        """
        packed = self._near_pairs(todo)
        if packed is not None:
            self._settle_pairs(todo, packed)
            return
        half = len(todo) // 2
        self.settle(todo[:half])
        settled = todo[:half][self.kept[todo[:half]]]
        self.settle(self.drop_near(settled, todo[half:]))

    def _near_pairs(self, todo: Indices) -> Words | None:
        """List the near pairs within `todo`, packed by position, later before earlier.

        None if they are many.
        """
        words = self.words[todo]
        if len(todo) <= _FEW:
            near = np.bitwise_count(words[:, None] ^ words[None, :]) <= self.layout.distance
            earlier, later = np.nonzero(np.triu(near, 1))
            return pack(later, earlier)
        search = Search(words, None, self.layout)
        limit = _PAIRS_EACH * len(todo)
        try:
            found = [pack(j, i) for i, j in near_pairs(search, limit=limit, spread=self.spread)]
        except TooManyPairs:
            return None
        return np.concatenate([np.empty(0, np.uint64), *found])

    def _settle_pairs(self, todo: Indices, packed: Words) -> None:
        packed.sort()
        kept = [True] * len(todo)
        for start in range(0, len(packed), _CHUNK):
            later, earlier = unpack(packed[start : start + _CHUNK])
            # In this order an earlier one is settled before it is asked for.
            for one, other in zip(later.tolist(), earlier.tolist(), strict=True):
                if kept[one] and kept[other]:
                    kept[one] = False
                    self.nearest[todo[one]] = todo[other]
        self.kept[todo] = kept
