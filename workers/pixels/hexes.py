"""Hashes as the tables hold them, 16 hex digits. Light to import (NumPy and Arrow)."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_DIGITS = 16


def hashes_from_hex(texts: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return the (N,) uint64 hashes written as N texts of 16 hex digits; nulls are left out.

    A million take a tenth of a second. Raises ValueError for a text of another length or with
    anything else in it.
    """
    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    return np.concatenate([np.empty(0, np.uint64), *(_parse(chunk) for chunk in chunks)])


def hashes_to_hex(hashes: NDArray[np.uint64]) -> pa.Array:
    """Return N texts of 16 hex digits, as `workers.pixels.hash.to_hex` writes each."""
    digits = hashes.astype(">u8").tobytes().hex().encode()
    wide = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(_DIGITS), len(hashes), [None, pa.py_buffer(digits)]
    )
    return wide.cast(pa.string())


def _parse(texts: pa.Array) -> NDArray[np.uint64]:
    # The cast refuses texts of another length.
    wide = texts.cast(pa.string()).drop_null().cast(pa.binary(_DIGITS))
    start = wide.offset * _DIGITS
    digits = memoryview(wide.buffers()[1] or b"")[start : start + len(wide) * _DIGITS]
    packed = bytes.fromhex(str(digits, "ascii"))
    if len(packed) != len(wide) * _DIGITS // 2:
        raise ValueError("a hash has characters that are no hex digits")
    return np.frombuffer(packed, ">u8").astype(np.uint64)
