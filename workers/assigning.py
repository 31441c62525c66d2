"""Groups into places by share, evenly over labels, and the same again when images are added."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Groups:
    """Images that stay together, as arrays: a million groups are a million patients."""

    names: pa.Array
    """(G,) what the draw depends on."""
    place: Codes
    """(G,) where an earlier split put a group, -1 for nowhere."""
    start: Codes
    """(G + 1,) group g has entries start[g] to start[g + 1]."""
    label: Codes
    """(E,) label of an entry."""
    count: Codes
    """(E,) images of the group with that label."""

    @property
    def size(self) -> Codes:
        """(G,) images of each group."""
        ends = np.concatenate([[0], np.cumsum(self.count)])[self.start]
        return np.diff(ends)


def gather(names: pa.Array, member: Codes, label: Codes, before: Codes) -> Groups:
    """Gather images into groups.

    `names` (G,) are those of the groups; `member` (N,) is the group of each image, `label` its
    label's code and `before` its place in an earlier split, -1 for none. A group whose images had
    several places has the first of them.
    """
    labels = int(label.max(initial=0)) + 1
    key, count = np.unique(member * labels + label, return_counts=True)
    nowhere = np.iinfo(np.int64).max
    place = np.full(len(names), nowhere)
    np.minimum.at(place, member[before >= 0], before[before >= 0])
    return Groups(
        names=names,
        place=np.where(place == nowhere, -1, place),
        start=np.searchsorted(key // labels, np.arange(len(names) + 1)),
        label=key % labels,
        count=count.astype(np.int64),
    )


def assign(groups: Groups, shares: Sequence[float], seed: int) -> Codes:
    """Return the place of each group: an index into `shares`.

    Groups with a place keep it. The others, larger ones first and equal ones in an order drawn
    from `seed` and their names, go where they leave the largest share of the labels' targets
    unfilled. So a group's place depends on no order of input, and later images fill what is
    short. Places whose share is 0 get nothing new.
    """
    total = np.bincount(groups.label, weights=groups.count)
    owner = np.repeat(np.arange(len(groups.place)), np.diff(groups.start))
    settled = groups.place[owner]
    targets, filled = [], []
    for place, share in enumerate(shares):
        here = settled == place
        had = np.bincount(groups.label[here], groups.count[here], minlength=len(total))
        targets.append((share * total).tolist())
        filled.append(had.tolist())
    open_places = [place for place, share in enumerate(shares) if share > 0]
    places = groups.place.copy()
    start, label, count = groups.start.tolist(), groups.label.tolist(), groups.count.tolist()
    for one in _order(groups, seed).tolist():
        entries = [(label[at], count[at]) for at in range(start[one], start[one + 1])]
        chosen, most = -1, -np.inf
        for place in open_places:
            room = _room(entries, targets[place], filled[place])
            if room > most:
                chosen, most = place, room
        places[one] = chosen
        for kind, images in entries:
            filled[chosen][kind] += images
    return places


def codes_of(values: pa.ChunkedArray) -> tuple[Codes, pa.Array]:
    """Return (N,) the code of each string, -1 for null, and the distinct strings, sorted."""
    encoded = values.combine_chunks().dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    indices = pc.fill_null(encoded.indices, -1).to_numpy()
    codes = np.full(len(indices), -1, np.int64)
    codes[indices >= 0] = rank[indices[indices >= 0]]
    return codes, encoded.dictionary.take(pa.array(order))


def draws(names: pa.Array, start: str) -> NDArray[np.uint64]:
    """Return (N,) a number for each name that depends on it and on `start` alone."""
    drawn = b"".join(
        hashlib.blake2b((start + name).encode(), digest_size=8).digest()
        for name in names.to_pylist()
    )
    return np.frombuffer(drawn, ">u8").astype(np.uint64)


def _room(entries: list[tuple[int, int]], target: list[float], filled: list[float]) -> float:
    """Say how short of its targets a place would still be with this group in it."""
    room = 0.0
    for label, images in entries:
        room += images * (1 - (filled[label] + images) / target[label])
    return room


def _order(groups: Groups, seed: int) -> Codes:
    """Return the groups without a place, larger ones first, equal ones as drawn."""
    todo = np.flatnonzero(groups.place < 0)
    drawn = draws(groups.names.take(pa.array(todo)), f"{seed}:")
    return todo[np.lexsort((drawn, -groups.size[todo]))]
