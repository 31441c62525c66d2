"""What stands on two sides of a split: patients, images, near-duplicates."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from workers.grouping import Links

PARTS = ("train", "val", "test")
_BITS = {part: 1 << place for place, part in enumerate(PARTS)}

PartBits = NDArray[np.uint8]
"""(N,) the parts a row stands in, as a sum of 1 (train), 2 (val) and 4 (test)."""


@dataclass(frozen=True)
class Leak:
    """What two parts of a split share."""

    first: str
    second: str
    patients: int
    """Patients with an image in each."""
    images: int
    """Images (equal bytes) that stand in both."""
    near_duplicates: int
    """Images of the second part that have a near-duplicate, not an equal, in the first."""
    second_size: int
    """Images of the second part."""

    @property
    def any(self) -> bool:
        return bool(self.patients or self.images or self.near_duplicates)


def part_bits(parts: list[frozenset[str]]) -> PartBits:
    """Encode the parts of each row."""
    return np.array([sum(_BITS[part] for part in some) for some in parts], np.uint8)


def find_leaks(rows: pa.Table, links: Links, parts: PartBits) -> Iterator[Leak]:
    """Yield what each two parts share, for parts that both have images.

    `rows` has patient_ids (list of strings).
    """
    patient_bits = _bits_of_patients(rows, parts)
    near_bits = _bits_of_neighbours(links, parts)
    for first, second in combinations(PARTS, 2):
        one, other = _BITS[first], _BITS[second]
        in_second = (parts & other) > 0
        if not in_second.any() or not (parts & one).any():
            continue
        both = one | other
        yield Leak(
            first=first,
            second=second,
            patients=int(np.count_nonzero((patient_bits & both) == both)),
            images=int(np.count_nonzero((parts & both) == both)),
            near_duplicates=int(np.count_nonzero(in_second & ((near_bits & one) > 0))),
            second_size=int(np.count_nonzero(in_second)),
        )


def _bits_of_patients(rows: pa.Table, parts: PartBits) -> PartBits:
    """Return (P,) the parts each patient has images in."""
    patients = rows["patient_ids"].combine_chunks()
    image = pc.list_parent_indices(patients).to_numpy()
    names = patients.flatten()
    image = image[pc.is_valid(names).to_numpy(zero_copy_only=False)]
    encoded = names.drop_null().dictionary_encode()
    bits = np.zeros(len(encoded.dictionary), np.uint8)
    np.bitwise_or.at(bits, encoded.indices.to_numpy(), parts[image])
    return bits


def _bits_of_neighbours(links: Links, parts: PartBits) -> PartBits:
    """Return (N,) the parts in which a row has another image as a near-duplicate.

    Equal hashes are linked to the first one of their class only, and only first ones to others;
    so what lies near a class is gathered at its first one and handed to all.
    """
    near = links.near
    equal = near.distance == 0
    first, later = near.i[equal], near.j[equal]
    leader = np.arange(len(parts))
    leader[later] = first
    class_bits = parts.copy()
    np.bitwise_or.at(class_bits, first, parts[later])
    around = np.zeros(len(parts), np.uint8)
    np.bitwise_or.at(around, near.i[~equal], class_bits[near.j[~equal]])
    np.bitwise_or.at(around, near.j[~equal], class_bits[near.i[~equal]])
    return around[leader] | _bits_of_equals(leader, parts)


def _bits_of_equals(leader: NDArray[np.int64], parts: PartBits) -> PartBits:
    """Return (N,) the parts of the other members of each row's class."""
    bits = np.zeros(len(parts), np.uint8)
    for part in _BITS.values():
        inside = (parts & part) > 0
        members = np.bincount(leader[inside], minlength=len(parts))
        others = members[leader] - inside
        bits |= np.where(others > 0, part, 0).astype(np.uint8)
    return bits
