"""Revealing many uris at once, against one at a time."""

import pyarrow as pa
import pytest

from jobs.ingest import names as module
from jobs.ingest.names import decode, encode, reveal_all
from schemas.errors import KeyFileError
from workers.pseudonyms import Pseudonymizer

KEY = Pseudonymizer(b"k" * 32)
ONE, OTHER = KEY.seal("person12"), KEY.seal("Jürgen~")
URIS = [
    "/a/b.png",
    "",
    f"/a/{ONE}/b.png",
    ONE,
    f"/a/{ONE}/{OTHER}.png",
    f"/a~/{ONE}/b",
    f"/a/{ONE}~",
    "/a/~id-abc~/b",
    "~id-" + "A" * 21 + "~",  # a character too short for a token
    "/~~/",
    "~",
    KEY.seal("/no/text\udcff.png"),
    f"{OTHER}ä",
    f"/a/{ONE}/b.png",
]


@pytest.mark.parametrize("stretch", [1, 3, 65_536])
def test_uris_are_revealed_as_one_at_a_time(monkeypatch: pytest.MonkeyPatch, stretch: int) -> None:
    monkeypatch.setattr(module, "_STRETCH", stretch)
    expected = [KEY.reveal(uri) for uri in URIS]
    whole = pa.array(URIS)
    within = pa.array([f"/x/{ONE}", *URIS, "/y"]).slice(1, len(URIS))
    chunked = pa.chunked_array([URIS[:4], [], URIS[4:]], pa.string())
    for uris in (whole, within, chunked):
        assert [decode(one) for one in reveal_all(uris, KEY).to_pylist()] == expected
    assert expected[2] == "/a/person12/b.png"


def test_nothing_is_revealed_of_nothing() -> None:
    assert reveal_all(pa.array([], pa.string()), KEY).to_pylist() == []


def test_each_token_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    key, opened = Pseudonymizer(b"k" * 32), []
    monkeypatch.setattr(key, "open", lambda token: opened.append(token) or KEY.open(token))
    uris = pa.array([f"/{ONE}/{number}.png" for number in range(50)] + [f"/{OTHER}/1.png"])
    assert reveal_all(uris, key).to_pylist()[49:] == [b"/person12/49.png", encode("/Jürgen~/1.png")]
    assert sorted(opened) == sorted([ONE, OTHER])


def test_a_token_of_another_key_is_an_error() -> None:
    with pytest.raises(KeyFileError, match="another key"):
        reveal_all(pa.array([f"/a/{ONE}/b.png"]), Pseudonymizer(b"j" * 32))
