"""What stands on two sides of a split: patients, images, near-duplicates."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from workers.grouping import Indices, Links, Patients, patients_of
from workers.parts import BITS, PARTS, PartBits
from workers.pixels.neighbours import Pairs

Bits = NDArray[np.bool_]

_FAR = np.iinfo(np.int64).max
"""The key of a neighbour where there is none."""


@dataclass(frozen=True)
class Seen:
    """Rows of the second part of two, and for each a row of the first part that has seen it."""

    row: Indices
    other: Indices


@dataclass(frozen=True)
class Leak:
    """What two parts of a split share."""

    first: str
    second: str
    by_patient: Seen
    """The first row of the same patient, if possible another one; a row for each patient."""
    patient: Indices
    """The patient of each row of `by_patient`, by its code in `workers.grouping.patients_of`."""
    by_bytes: Indices
    """Rows (equal bytes) that stand in both parts."""
    by_nearness: Seen
    """The nearest other row."""
    second_size: int
    """Images of the second part."""

    @property
    def patients(self) -> int:
        """Patients with an image in each part."""
        return len(np.unique(self.patient))

    @property
    def images(self) -> int:
        """Images that stand in both."""
        return len(self.by_bytes)

    @property
    def near_duplicates(self) -> int:
        """Images of the second part that have a near-duplicate, not an equal, in the first."""
        return len(self.by_nearness.row)

    @property
    def any(self) -> bool:
        return bool(self.patients or self.images or self.near_duplicates)


def find_leaks(rows: pa.Table, links: Links, parts: PartBits) -> Iterator[Leak]:
    """Yield what each two parts share, for parts that both have images.

    `rows` has patient_ids (list of strings). Time and memory grow with images and links, never
    with the pairs of images that a patient or a class of equal hashes has on two sides.
    """
    patients = patients_of(rows)
    classes = _Classes.of(links.near, len(parts))
    for first, second in combinations(PARTS, 2):
        in_first, in_second = (parts & BITS[first]) > 0, (parts & BITS[second]) > 0
        if not in_second.any() or not in_first.any():
            continue
        by_patient, patient = _same_patient(patients, in_first, in_second)
        yield Leak(
            first=first,
            second=second,
            by_patient=by_patient,
            patient=patient,
            by_bytes=np.flatnonzero(in_first & in_second),
            by_nearness=classes.nearest(in_first, in_second),
            second_size=int(np.count_nonzero(in_second)),
        )


def _same_patient(patients: Patients, in_first: Bits, in_second: Bits) -> tuple[Seen, Indices]:
    count = len(in_first)
    here = in_first[patients.row]
    lowest, next_one = _two_lowest(
        patients.code[here], patients.row[here], len(patients.names), count
    )
    row, code = patients.row, patients.code
    seen = in_second[row] & (lowest[code] < count)
    row, code = row[seen], code[seen]
    others = np.where(
        (lowest[code] == row) & (next_one[code] < count), next_one[code], lowest[code]
    )
    return Seen(row, others), code


@dataclass(frozen=True)
class _Classes:
    """Rows of equal hashes as classes, led by a row, and the near pairs of classes.

    Equal hashes are linked to the first one of their class only, and only first ones to others;
    so what lies near a class is gathered at its first one and handed to all.
    """

    leader: Indices
    """(N,) the first row of each row's class."""
    i: Indices
    j: Indices
    distance: NDArray[np.int64]

    @staticmethod
    def of(near: Pairs, count: int) -> "_Classes":
        equal = near.distance == 0
        leader = np.arange(count)
        leader[near.j[equal]] = near.i[equal]
        apart = ~equal
        return _Classes(leader, near.i[apart], near.j[apart], near.distance[apart].astype(np.int64))

    def nearest(self, in_first: Bits, in_second: Bits) -> Seen:
        """Return the rows of the second part near another of the first, and the nearest of these.

        Of several at the same distance, the first.
        """
        count = len(self.leader)
        inside = np.flatnonzero(in_first)
        lowest, next_one = _two_lowest(self.leader[inside], inside, count, count)
        # Distance and row in one number, so that the least one is the nearest, then the first.
        nearest = np.full(count, _FAR)
        for one, other in ((self.i, self.j), (self.j, self.i)):
            found = lowest[other] < count
            key = self.distance[found] * count + lowest[other[found]]
            np.minimum.at(nearest, one[found], key)
        row = np.flatnonzero(in_second)
        leader = self.leader[row]
        equal = np.where(lowest[leader] == row, next_one[leader], lowest[leader])
        key = np.where(equal < count, equal, nearest[leader])
        near = key < _FAR
        return Seen(row[near], key[near] % count)


def _two_lowest(owner: Indices, row: Indices, owners: int, none: int) -> tuple[Indices, Indices]:
    """Return (owners,) the lowest row of each owner, and its next lowest; `none` where none is."""
    lowest, next_one = np.full(owners, none), np.full(owners, none)
    np.minimum.at(lowest, owner, row)
    rest = row != lowest[owner]
    np.minimum.at(next_one, owner[rest], row[rest])
    return lowest, next_one
