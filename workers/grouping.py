"""Which images must stay together in a split: those of a patient, and near-duplicates.

Light to import (NumPy and Arrow): planning checks groups before a run begins.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.errors import SplitError
from workers.pixels.hexes import hashes_from_hex
from workers.pixels.neighbours import Pairs, TooManyPairs, pairs
from workers.spreading import Spread, here

Indices = NDArray[np.int64]

SMALLEST_LIMIT = 25
"""Images that a group may always have: a hundredth of a small corpus is less than a patient."""
_MOST_NEAR = 50
"""Near-duplicate pairs, by the number of images, that are still listed."""


@dataclass(frozen=True)
class Links:
    """Edges between images, by row."""

    patients: tuple[Indices, Indices]
    """Rows of the same patient, chained."""
    near: Pairs
    """Near-duplicates, as `workers.pixels.neighbours.pairs` lists them."""


@dataclass(frozen=True)
class Patients:
    """Who is on which row; a row of several patients is named several times."""

    row: Indices
    code: Indices
    names: pa.Array
    """The patient of each code."""


def link(rows: pa.Table, distance: int, spread: Spread = here) -> Links:
    """Link rows that share a patient or lie within `distance` of each other.

    `rows` has patient_ids (list of strings) and phash (16 hex digits, null where unknown). A long
    search for neighbours is cut into parts for `spread`.

    Raises:
        SplitError: if the images have more than fifty near-duplicates each, which would join
            most of the corpus and fill the memory first.
    """
    hashed, hashes = hashes_of(rows)
    try:
        found = pairs(hashes, distance, limit=_MOST_NEAR * len(hashes), spread=spread)
    except TooManyPairs as error:
        raise SplitError(
            f"The {len(hashes):,} images have more than {_MOST_NEAR} near-duplicates each within "
            f"distance {distance}: groups would hold most of them",
            remedy="lower split_distance",
        ) from error
    near = Pairs(hashed[found.i], hashed[found.j], found.distance)
    return Links(patients=_same_patient(rows), near=near)


def link_among(links: Links, rows: pa.Table, kept: NDArray[np.bool_]) -> Links:
    """Return the links between kept rows alone, as `link` would find them among these.

    `links` are those of all rows and `kept` (N,) says which stay; `rows` are the kept ones.
    """
    near, at, count = links.near, np.flatnonzero(kept), len(kept)
    equal = near.distance == 0
    leader = np.arange(count)
    leader[near.j[equal]] = near.i[equal]
    # A class is led by its first member that is still there.
    first = np.full(count, len(at))
    np.minimum.at(first, leader[at], np.arange(len(at)))
    one, two = first[near.i[~equal]], first[near.j[~equal]]
    both = (one < len(at)) & (two < len(at))
    lead = first[leader[at]]
    later = np.flatnonzero(lead != np.arange(len(at)))
    i = np.concatenate([np.minimum(one, two)[both], lead[later]])
    j = np.concatenate([np.maximum(one, two)[both], later])
    distance = np.concatenate([near.distance[~equal][both], np.zeros(len(later), np.uint8)])
    order = np.lexsort((j, i))
    return Links(_same_patient(rows), Pairs(i[order], j[order], distance[order]))


def hashes_of(rows: pa.Table) -> tuple[Indices, NDArray[np.uint64]]:
    """Return the rows that have a phash, and their hashes."""
    hashed = np.flatnonzero(pc.is_valid(rows["phash"]).to_numpy())
    return hashed, hashes_from_hex(rows["phash"].drop_null())


def patients_of(rows: pa.Table) -> Patients:
    """Return who is on which row, without unknown patients."""
    lists = rows["patient_ids"].combine_chunks()
    row, names = pc.list_parent_indices(lists), lists.flatten()
    known = pc.is_valid(names)
    encoded = names.filter(known).dictionary_encode()
    return Patients(
        row.filter(known).to_numpy().astype(np.int64),
        encoded.indices.to_numpy().astype(np.int64),
        encoded.dictionary,
    )


def group(links: Links, count: int) -> Indices:
    """Return the group of each of `count` rows: the first row of its connected component."""
    i = np.concatenate([links.patients[0], links.near.i])
    j = np.concatenate([links.patients[1], links.near.j])
    return connected_components(count, i, j)


def connected_components(count: int, i: Indices, j: Indices) -> Indices:
    """Return, for each of `count` nodes, the smallest node that the edges (i, j) join it to.

    Labels sink along edges and through their own labels, so that a chain of n nodes takes about
    log n rounds.
    """
    label = np.arange(count)
    while True:
        low = np.minimum(label[i], label[j])
        sunk = label.copy()
        for ends in (i, j):
            np.minimum.at(sunk, label[ends], low)
            np.minimum.at(sunk, ends, low)
        sunk = sunk[sunk]
        if np.array_equal(sunk, label):
            return label
        label = sunk


def check_group_sizes(groups: Indices, links: Links, max_share: float, distance: int) -> None:
    """Refuse groups that hold too large a share of the images.

    Raises:
        SplitError: naming the size of the largest group, what joins it, and what to do.
    """
    count = len(groups)
    sizes = np.bincount(groups, minlength=1)
    largest = int(sizes.max(initial=0))
    limit = max(int(max_share * count), SMALLEST_LIMIT)
    if largest <= limit:
        return
    leader = int(sizes.argmax())
    by_patient = int(np.count_nonzero(groups[links.patients[0]] == leader))
    by_nearness = int(np.count_nonzero(groups[links.near.i] == leader))
    by_distance = [
        f"{_largest(links, count, nearer)} images at distance {nearer}"
        for nearer in range(0, distance, 2)
    ]
    raise SplitError(
        f"A group of images that must stay together is too large for a split: {largest:,} of "
        f"{count:,} images, joined by {by_nearness:,} near-duplicate pairs within distance "
        f"{distance} and {by_patient:,} links within patients",
        got=f"{largest / count:.1%}, allowed are {limit:,} images ({limit / count:.1%})",
        remedy=(
            "lower split_distance"
            + (f" (the largest group has {', '.join(by_distance)})" if by_distance else "")
            + ", or raise max_group_share if these images do belong together"
        ),
    )


def _largest(links: Links, count: int, distance: int) -> int:
    closer = links.near.distance <= distance
    near = Pairs(links.near.i[closer], links.near.j[closer], links.near.distance[closer])
    return int(np.bincount(group(Links(links.patients, near), count)).max())


def _same_patient(rows: pa.Table) -> tuple[Indices, Indices]:
    patients = patients_of(rows)
    order = np.argsort(patients.code, kind="stable")
    code, row = patients.code[order], patients.row[order]
    same = code[1:] == code[:-1]
    return row[:-1][same], row[1:][same]
