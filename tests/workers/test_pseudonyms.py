"""Tests of the key file, of pseudonyms and of tokens in uris."""

import os
import pickle
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import KeyFileError
from workers.pseudonyms import Pseudonymizer, is_masked, key_file

KEY = bytes(range(32))


@pytest.fixture
def pseudonymizer() -> Pseudonymizer:
    return Pseudonymizer(KEY)


def test_the_key_is_made_once_and_for_its_owner_only(own_home: Path) -> None:
    with pytest.raises(KeyFileError, match="missing") as error:
        Pseudonymizer.from_key_file()
    assert str(key_file()) in str(error.value)
    made = Pseudonymizer.from_key_file(create=True)
    assert stat.S_IMODE(key_file().stat().st_mode) == 0o600
    assert Pseudonymizer.from_key_file(create=True).check == made.check
    assert [one.name for one in key_file().parent.iterdir()] == [key_file().name]


def test_processes_that_race_for_the_key_agree(own_home: Path) -> None:
    with ThreadPoolExecutor(16) as racers:
        made = list(racers.map(lambda _: Pseudonymizer.from_key_file(create=True), range(64)))
    assert len({one.check for one in made}) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_open_to_others_is_refused_with_the_remedy(own_home: Path, mode: int) -> None:
    Pseudonymizer.from_key_file(create=True)
    key_file().chmod(mode)
    with pytest.raises(KeyFileError, match=re.escape(f"chmod 600 {key_file()}")):
        Pseudonymizer.from_key_file(create=True)


@pytest.mark.parametrize("text", ["", "abc", "zz" * 32, "ab" * 33, "ab" * 31])
def test_a_damaged_key_is_refused_and_not_shown(own_home: Path, text: str) -> None:
    key_file().write_text(text)
    key_file().chmod(0o600)
    with pytest.raises(KeyFileError, match="damaged") as error:
        Pseudonymizer.from_key_file(create=True)
    assert not text or text not in str(error.value)


def test_a_folder_that_can_not_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAYWARD_KEY_FILE", str(tmp_path / "file" / "key"))
    with pytest.raises(KeyFileError, match="can't be made"):
        Pseudonymizer.from_key_file(create=True)


def test_the_default_place_is_the_configuration_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYWARD_KEY_FILE")
    assert key_file() == Path(os.environ["XDG_CONFIG_HOME"]) / "rayward" / "pseudonym.key"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert key_file() == Path.home() / ".config" / "rayward" / "pseudonym.key"


def test_patients_keep_their_pseudonym_under_one_key_only(pseudonymizer: Pseudonymizer) -> None:
    code = pseudonymizer.patient("person17")
    assert re.fullmatch(r"p[a-z2-7]{20}", code)
    assert code == Pseudonymizer(KEY).patient(" person17 ")
    assert code != pseudonymizer.patient("person18")
    assert code != Pseudonymizer(KEY[::-1]).patient("person17")


def test_neither_repr_nor_pickle_gives_the_key_away(pseudonymizer: Pseudonymizer) -> None:
    assert KEY.hex() not in repr(pseudonymizer)
    with pytest.raises(TypeError, match="not to be pickled"):
        pickle.dumps(pseudonymizer)


@pytest.mark.parametrize(
    ("uri", "identifiers", "hidden", "kept"),
    [
        ("/a/person1/person1_x.png", ["person1"], ["person1"], ["/a/", "_x.png"]),
        ("/a/person12/x.png", ["person1"], [], ["/a/person12/x.png"]),
        ("/a/ABC123/abc123.png", ["Abc123"], ["ABC123", "abc123"], [".png"]),
        ("/a/p007/img_7.png", ["7"], ["007", "_7"], ["/a/p", "img_"]),
        ("/a/2017/7.png", ["7"], ["/7"], ["/a/2017/"]),
        ("/a/doe/doe_john.png", ["doe", "doe_john"], ["doe", "john"], ["/a/"]),
        ("/a/JSmith2.png", ["smith"], ["Smith"], ["/a/J", "2.png"]),
        ("/a/Anna/ann.png", ["ann"], ["/ann"], ["/a/Anna/"]),
        ("s3://b/x+y (1)/q.png", ["x+y (1)"], ["x+y"], ["s3://b/", "/q.png"]),
        ("/a/Müller/1.png", ["müller"], ["Müller"], ["/1.png"]),
    ],
)
def test_masks_what_identifies_and_nothing_else(
    pseudonymizer: Pseudonymizer,
    uri: str,
    identifiers: list[str],
    hidden: list[str],
    kept: list[str],
) -> None:
    masked = pseudonymizer.mask(uri, identifiers)
    bare = re.sub(r"~id-[A-Za-z0-9_-]+~", "~", masked)
    assert all(one not in bare for one in hidden)
    assert all(one in bare for one in kept)
    assert is_masked(masked) == bool(hidden)
    assert pseudonymizer.reveal(masked) == uri
    assert masked == pseudonymizer.mask(uri, reversed(identifiers))


def test_one_identifier_gives_one_token(pseudonymizer: Pseudonymizer) -> None:
    tokens = re.findall(r"~id-[^~]+~", pseudonymizer.mask("/a/pat9/x_pat9.png", ["pat9"]))
    assert len(tokens) == 2
    assert tokens[0] == tokens[1] == pseudonymizer.seal("pat9")


def test_a_sealed_path_shows_nothing_and_comes_back(pseudonymizer: Pseudonymizer) -> None:
    sealed = pseudonymizer.seal("s3://bucket/anna/1.png")
    assert re.fullmatch(r"~id-[A-Za-z0-9_-]+~", sealed)
    assert pseudonymizer.reveal(sealed) == "s3://bucket/anna/1.png"


def test_a_file_that_looks_masked_comes_back_as_it_was(pseudonymizer: Pseudonymizer) -> None:
    odd = f"/a/{Pseudonymizer(KEY[::-1]).seal('x')}/person1.png"
    for identifiers in ([], ["person1"]):
        assert pseudonymizer.reveal(pseudonymizer.mask(odd, identifiers)) == odd


def test_tokens_of_another_key_are_an_error(pseudonymizer: Pseudonymizer) -> None:
    masked = pseudonymizer.mask("/a/person1.png", ["person1"])
    with pytest.raises(KeyFileError, match="another key"):
        Pseudonymizer(KEY[::-1]).reveal(masked)


@given(
    uri=st.text(st.characters(codec="utf-8"), max_size=60),
    identifiers=st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=4),
)
def test_whatever_is_masked_comes_back(uri: str, identifiers: list[str]) -> None:
    pseudonymizer = Pseudonymizer(KEY)
    masked = pseudonymizer.mask(uri, identifiers)
    assert pseudonymizer.reveal(masked) == uri
    assert pseudonymizer.reveal(pseudonymizer.seal(uri)) == uri


def test_file_names_that_are_no_text_survive(pseudonymizer: Pseudonymizer) -> None:
    name = os.fsdecode(b"/a/\xff\xfe.png")
    assert pseudonymizer.reveal(pseudonymizer.seal(name)) == name
    masked = pseudonymizer.mask(name, ["a"])
    assert masked.encode().decode() == masked
    assert pseudonymizer.reveal(masked) == name
