"""Patterns over thousands of paths say what they say of each."""

import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.ingest.patterns import Patterns
from schemas.globs import glob_regex

PATHS = ("a.png", "a_mask.png", "s/a.png", "s/b_mask_1.png", "masks/c.png", "s/t/d.dcm")


def wanted(include: tuple[str, ...], exclude: tuple[str, ...]) -> list[str]:
    found = Patterns(include, exclude).wants(pa.array([one.encode() for one in PATHS]))
    return [path for path, comes in zip(PATHS, found.to_pylist(), strict=True) if comes]


@pytest.mark.parametrize(
    ("include", "exclude", "found"),
    [
        ((), (), PATHS),
        ((), ("*_mask*", "masks/"), ("a.png", "s/a.png", "s/t/d.dcm")),
        (("*.png",), (), ("a.png", "a_mask.png", "s/a.png", "s/b_mask_1.png", "masks/c.png")),
        (("s/**/*.dcm", "/a.png"), (), ("a.png", "s/t/d.dcm")),
        (("s/",), ("*_mask*",), ("s/a.png", "s/t/d.dcm")),
        (("*.tif",), (), ()),
    ],
)
def test_a_file_comes_in_by_one_pattern_and_stays_out_by_another(
    include: tuple[str, ...], exclude: tuple[str, ...], found: tuple[str, ...]
) -> None:
    assert wanted(include, exclude) == list(found)


def test_without_patterns_there_is_nothing_to_ask() -> None:
    assert not Patterns((), ())
    assert Patterns((), ("x",)) and Patterns(("x",), ())


def test_names_that_are_no_text_are_matched_by_the_rest_of_them() -> None:
    paths = pa.array([b"\xff_mask.png", b"\xff.png", "ä.png".encode()])
    assert Patterns((), ("*_mask*",)).wants(paths).to_pylist() == [False, True, True]
    assert Patterns(("?.png",), ()).wants(paths).to_pylist() == [False, True, True]


GLOB = st.text("ab*?/.[!]-", min_size=1, max_size=8)
PATH = st.lists(st.text("ab.-!]*", min_size=1, max_size=4), min_size=1, max_size=4).map("/".join)


@given(st.lists(GLOB, min_size=1, max_size=3), st.lists(PATH, min_size=1, max_size=20))
def test_arrow_and_python_read_every_pattern_alike(globs: list[str], paths: list[str]) -> None:
    known = []
    for glob in globs:
        try:
            known.append(glob_regex(glob))
        except ValueError:
            continue
    usable = [one for one in globs if _is_one(one)]
    if not usable:
        return
    expected = [any(re.search(one, path) for one in known) for path in paths]
    found = Patterns(tuple(usable), ()).wants(pa.array([one.encode() for one in paths]))
    assert found.to_pylist() == expected


def _is_one(glob: str) -> bool:
    try:
        glob_regex(glob)
    except ValueError:
        return False
    return True
