"""Which images must stay together in a split: those of a patient, and near-duplicates.

Light to import (NumPy and Arrow): planning checks groups before a run begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.errors import SplitError
from workers.pixels.neighbours import Pairs, TooManyPairs, pairs

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


def link(rows: pa.Table, distance: int) -> Links:
    """Link rows that share a patient or lie within `distance` of each other.

    `rows` has patient_ids (list of strings) and phash (16 hex digits, null where unknown).

    Raises:
        SplitError: if the images have more than fifty near-duplicates each, which would join
            most of the corpus and fill the memory first.
    """
    hashed = np.flatnonzero(pc.is_valid(rows["phash"]).to_numpy())
    texts = rows["phash"].drop_null().to_pylist()
    hashes = np.array([int(text, 16) for text in texts], np.uint64)
    try:
        found = pairs(hashes, distance, limit=_MOST_NEAR * len(hashes))
    except TooManyPairs as error:
        raise SplitError(
            f"The {len(hashes):,} images have more than {_MOST_NEAR} near-duplicates each within "
            f"distance {distance}: groups would hold most of them",
            remedy="lower split_distance",
        ) from error
    near = Pairs(hashed[found.i], hashed[found.j], found.distance)
    return Links(patients=_same_patient(rows), near=near)


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
    patients = rows["patient_ids"].combine_chunks()
    image = pc.list_parent_indices(patients).to_numpy()
    codes = patients.flatten().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    known = codes == codes  # noqa: PLR0124 - a null patient becomes NaN
    image, codes = image[known].astype(np.int64), codes[known]
    order = np.argsort(codes, kind="stable")
    same = codes[order][1:] == codes[order][:-1]
    return image[order][:-1][same], image[order][1:][same]


def parts_of(names: Sequence[str]) -> frozenset[str]:
    """Return the parts that a data set's own names mean.

    Raises:
        SplitError: for a name that means none.
    """
    unknown = sorted({name for name in names if name.lower() not in _PARTS})
    if unknown:
        raise SplitError(
            "The data set's own split has parts of unknown meaning",
            got=", ".join(unknown),
            remedy=f"name them {', '.join(sorted(_PARTS))} in the metadata",
        )
    return frozenset(_PARTS[name.lower()] for name in names)


_PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
