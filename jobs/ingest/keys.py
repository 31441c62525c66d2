"""Keys of many byte strings at once: 128 bits that stand for each, and rows found by them.

To compare a million files by name, Arrow or a dict would hold every name. A key takes 16 bytes. Two
names share one with a probability of 2^-128; that is also how certain an `image_id` is.
"""

import secrets

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_STRETCH_ROWS = 16_384
_STRETCH_BYTES = 4 * 2**20
"""Of padded words that are hashed together."""
_WORD = 8
NOWHERE = -1
"""The row of what is not found."""

Keys = NDArray[np.uint64]
"""One key a row, in two columns of 64 bits."""


class Hasher:
    """Makes keys with a secret of its own, so that nobody can choose names that share one."""

    def __init__(self, secret: bytes | None = None) -> None:
        """``secret`` is 32 bytes; made when not given."""
        words = np.frombuffer(secret or secrets.token_bytes(32), np.uint64)
        self._seeds, self._factors = words[:2], words[2:] | np.uint64(1)

    def keys(self, values: pa.Array) -> Keys:
        """The keys of an array of bytes without nulls."""
        parts = [
            self._of_stretch(values.slice(at, _STRETCH_ROWS))
            for at in range(0, len(values), _STRETCH_ROWS)
        ]
        return np.concatenate([np.empty((0, 2), np.uint64), *parts])

    def _of_stretch(self, values: pa.Array) -> Keys:
        """Of a few values; of fewer at once where one is long, since all are padded to it."""
        offsets, data = byte_buffers(values)
        lengths = np.diff(offsets)
        width = -(-int(lengths.max()) // _WORD) * _WORD
        half = len(values) // 2
        if half and width * len(values) > _STRETCH_BYTES:
            parts = values.slice(0, half), values.slice(half)
            return np.concatenate([self._of_stretch(part) for part in parts])
        padded = np.zeros((len(values), width), np.uint8)
        padded[np.arange(width) < lengths[:, None]] = data[offsets[0] : offsets[-1]]
        words = padded.reshape(-1).view(np.uint64).reshape(len(values), -1)
        columns = zip(self._seeds, self._factors, strict=True)
        return np.stack([_mixed(words, lengths, *one) for one in columns], axis=1)


def _mixed(
    words: NDArray[np.uint64], lengths: NDArray[np.int64], seed: np.uint64, factor: np.uint64
) -> NDArray[np.uint64]:
    """64 bits of each row's words up to its length in bytes.

    As in FNV-1a (xor, multiply), but a word at a time, with the high half folded into the low one.
    Every step is a bijection, of what came before as of the word.
    """
    state = (lengths.astype(np.uint64) ^ seed) * factor
    shortest = int(lengths.min())
    for column in range(words.shape[1]):
        # A value's key must not depend on how far its neighbours reach.
        inside = slice(None) if column * _WORD < shortest else lengths > column * _WORD
        mixed = (state[inside] ^ words[inside, column]) * factor
        state[inside] = mixed ^ (mixed >> np.uint64(32))
    mixed = state * factor
    return mixed ^ (mixed >> np.uint64(29))


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


def byte_buffers(values: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Offsets (one more than values) into the bytes behind an array of strings or bytes."""
    _, offsets, data = values.buffers()
    found = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    return found.astype(np.int64), np.frombuffer(data or b"", np.uint8)
