"""Keys of many byte strings at once: 128 bits that stand for each, and rows found by them.

To compare a million files by name, Arrow or a dict would hold every name. A key takes 16 bytes, and
two names share one with a probability of about 2^-128, unless somebody chose them to.
"""

import secrets

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

_STRETCH_ROWS = 16_384
"""Values that are Python objects at a time."""
NOWHERE = -1
"""The row of what is not found."""

Keys = NDArray[np.uint64]
"""One key a row, in two columns of 64 bits."""


class Hasher:
    """Makes keys by XXH3 with a seed of its own.

    The seed is there so that names that share a key in one plan do not in the next. XXH3 is no
    cryptographic hash, and promises nothing of names that were chosen to share one.
    """

    def __init__(self, seed: int | None = None) -> None:
        """``seed`` has 64 bits; made when not given."""
        self._seed = secrets.randbits(64) if seed is None else seed

    def keys(self, values: pa.Array) -> Keys:
        """The keys of an array of bytes without nulls."""
        digests = bytearray()
        for start in range(0, len(values), _STRETCH_ROWS):
            for value in values.slice(start, _STRETCH_ROWS).to_pylist():
                digests += xxh3_128_digest(value, self._seed)
        return np.frombuffer(digests, np.uint64).reshape(-1, 2)


class Index:
    """Rows by their keys; of several rows with one key, the first."""

    def __init__(self, keys: Keys) -> None:
        self._rows = np.argsort(keys[:, 0], kind="stable")
        self._first, self._second = keys[self._rows, 0], keys[self._rows, 1]

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """The row of each key, or `NOWHERE`."""
        found = np.full(len(keys), NOWHERE, np.int64)
        sought = np.argsort(keys[:, 0])  # neighbours are found in memory that is at hand
        places = np.searchsorted(self._first, keys[sought, 0])
        # By chance, others may share the first half of a key.
        while len(sought):
            inside = places < len(self._first)
            sought, places = sought[inside], places[inside]
            close = self._first[places] == keys[sought, 0]
            sought, places = sought[close], places[close]
            same = self._second[places] == keys[sought, 1]
            found[sought[same]] = self._rows[places[same]]
            sought, places = sought[~same], places[~same] + 1
        return found
