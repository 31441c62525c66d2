"""Uris as bytes, many at once, and what stood in them before identifiers were replaced."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from workers.pseudonyms import TOKEN, Pseudonymizer

_FENCE = ord("~")
"""A token begins and ends with it."""
_STRETCH = 65_536
"""Uris that are revealed at once: the pieces take several times their room."""


def encode(uri: str) -> bytes:
    """The bytes of a uri, also of one that is no UTF-8."""
    return uri.encode("utf-8", "surrogateescape")


def decode(uri: bytes) -> str:
    """The uri of these bytes."""
    return uri.decode("utf-8", "surrogateescape")


def reveal_all(uris: pa.Array | pa.ChunkedArray, pseudonymizer: Pseudonymizer) -> pa.Array:
    """The original uris as bytes.

    Patients are fewer than files: a uri with one token is cut at it, and each token is read once.
    """
    chunks = uris.chunks if isinstance(uris, pa.ChunkedArray) else [uris]
    parts = [
        _revealed(chunk.slice(at, _STRETCH).cast(pa.binary()), pseudonymizer)
        for chunk in chunks
        for at in range(0, len(chunk), _STRETCH)
    ]
    return pa.concat_arrays([pa.array([], pa.binary()), *parts])


def _revealed(uris: pa.Array, pseudonymizer: Pseudonymizer) -> pa.Array:
    offsets, data = _byte_buffers(uris)
    fences = offsets[0] + np.flatnonzero(data[offsets[0] : offsets[-1]] == _FENCE)
    rows = np.searchsorted(offsets, fences, side="right") - 1
    count = np.bincount(rows, minlength=len(uris))
    # Between two fences, and nowhere else in a uri with just two of them, there may be a token.
    cut = count == 2
    if not cut.any():
        revealed = uris
    else:
        pair = fences[cut[rows]].reshape(-1, 2)
        before, tokens, after = _pieces(uris, offsets, cut, np.add(pair, (0, 1)))
        revealed = pc.binary_join_element_wise(before, _opened(tokens, pseudonymizer), after, b"")
    several = pa.array(count > 2)
    if not pc.any(several).as_py():
        return revealed
    others = [encode(pseudonymizer.reveal(decode(one))) for one in uris.filter(several).to_pylist()]
    return pc.replace_with_mask(revealed, several, pa.array(others, pa.binary()))


def _pieces(
    uris: pa.Array, offsets: NDArray[np.int64], cut: NDArray[np.bool_], places: NDArray[np.int64]
) -> list[pa.Array]:
    """What stands before, between and after two places; all of an uncut uri stands before."""
    edges = np.stack([offsets[:-1], offsets[1:], offsets[1:]], axis=1)
    edges[cut, 1:] = places
    bounds = np.append(edges, offsets[-1]).astype(np.int32)
    buffers = [None, pa.py_buffer(bounds), uris.buffers()[2]]
    pieces = pa.Array.from_buffers(pa.binary(), edges.size, buffers)
    return [pieces.take(pa.array(np.arange(at, edges.size, 3))) for at in range(3)]


def _opened(pieces: pa.Array, pseudonymizer: Pseudonymizer) -> pa.Array:
    """What tokens stand for; other pieces stand for themselves."""
    coded = pieces.dictionary_encode()
    are_tokens = pc.match_substring_regex(coded.dictionary, f"^{TOKEN}$")
    told = zip(coded.dictionary.to_pylist(), are_tokens.to_pylist(), strict=True)
    texts = [
        encode(pseudonymizer.open(one.decode())) if is_token else one for one, is_token in told
    ]
    return pa.array(texts, pa.binary()).take(coded.indices)


def _byte_buffers(values: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Offsets (one more than values) into the bytes behind an array of strings or bytes."""
    _, offsets, data = values.buffers()
    found = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    return found.astype(np.int64), np.frombuffer(data or b"", np.uint8)
