"""The parts of a split, and which of them a data set's own split means."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.errors import SplitError

PARTS = ("train", "val", "test")
BITS = {part: 1 << place for place, part in enumerate(PARTS)}

PartBits = NDArray[np.uint8]
"""(N,) the parts a row stands in, as a sum of 1 (train), 2 (val) and 4 (test)."""
PartCodes = NDArray[np.int64]
"""(N,) the part of a row by its place in `PARTS`, -1 for none."""

_MEANT = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def given_parts(rows: pa.Table) -> PartBits:
    """Return the parts that a data set's own split gives each row (splits: list of strings).

    Raises:
        SplitError: for a name that means none.
    """
    lists = rows["splits"].combine_chunks()
    row, names = pc.list_parent_indices(lists), lists.flatten()
    known = pc.is_valid(names)
    encoded = names.filter(known).dictionary_encode()
    meant = np.array([BITS[part] for part in parts_of(encoded.dictionary.to_pylist())], np.uint8)
    bits = np.zeros(rows.num_rows, np.uint8)
    np.bitwise_or.at(bits, row.filter(known).to_numpy(), meant[encoded.indices.to_numpy()])
    return bits


def parts_of(names: list[str]) -> list[str]:
    """Return the part that each of a data set's own names means.

    Raises:
        SplitError: for a name that means none.
    """
    unknown = sorted({name for name in names if name.lower() not in _MEANT})
    if unknown:
        raise SplitError(
            "The data set's own split has parts of unknown meaning",
            got=", ".join(unknown),
            remedy=f"name them {', '.join(sorted(_MEANT))} in the metadata",
        )
    return [_MEANT[name.lower()] for name in names]


def bits_of(parts: PartCodes) -> PartBits:
    """Encode rows that stand in one part or none as bits."""
    return np.where(parts < 0, 0, 1 << np.maximum(parts, 0)).astype(np.uint8)
