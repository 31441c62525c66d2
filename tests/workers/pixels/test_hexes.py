import numpy as np
import pyarrow as pa
import pytest

from workers.pixels.hash import to_hex
from workers.pixels.hexes import hashes_from_hex, hashes_to_hex

HASHES = np.array([0, 1, 0xFEDCBA9876543210, 2**64 - 1], np.uint64)


def test_texts_are_those_of_single_hashes() -> None:
    assert hashes_to_hex(HASHES).to_pylist() == [to_hex(int(value)) for value in HASHES]
    assert hashes_to_hex(HASHES[:0]).type == pa.string()


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_texts_come_back_whatever_holds_them(kind: pa.DataType) -> None:
    texts = hashes_to_hex(HASHES).cast(kind)
    assert np.array_equal(hashes_from_hex(texts), HASHES)
    assert np.array_equal(hashes_from_hex(texts[2:]), HASHES[2:])
    chunks = pa.chunked_array([texts[1:3], texts[:0], pa.array([None, "0" * 15 + "A"], kind)])
    assert hashes_from_hex(chunks).tolist() == [*HASHES[1:3].tolist(), 10]


@pytest.mark.parametrize(
    "nothing", [pa.nulls(3), pa.array([], pa.string()), pa.chunked_array([], pa.string())]
)
def test_no_texts_are_no_hashes(nothing: pa.Array) -> None:
    assert hashes_from_hex(nothing).dtype == np.uint64
    assert not len(hashes_from_hex(nothing))


@pytest.mark.parametrize(
    "text", ["abc", "0" * 17, "g" * 16, " " * 16, "é" + "0" * 14, "00000000000000 1"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each of three parts words it its own way
        hashes_from_hex(pa.array(["0" * 16, text]))
