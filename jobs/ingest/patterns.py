"""Which files of an archive a job wants, by patterns of their relative paths."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from jobs.ingest.names import decode
from schemas.globs import glob_regex


class Patterns:
    """What comes in and what stays out; looks at thousands of paths at a time."""

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        """Without an ``include`` everything comes in that no ``exclude`` matches."""
        self._include, self._exclude = _either(include), _either(exclude)

    def __bool__(self) -> bool:
        return bool(self._include or self._exclude)

    def wants(self, paths: pa.Array) -> pa.BooleanArray:
        """Whether each of some relative paths (bytes) is wanted."""
        texts = _texts(paths)
        wanted = pa.array([True] * len(texts), pa.bool_())
        if self._include:
            wanted = pc.match_substring_regex(texts, self._include)
        if self._exclude:
            left_out = pc.match_substring_regex(texts, self._exclude)
            wanted = pc.and_not(wanted, left_out)
        return wanted


def _either(globs: Sequence[str]) -> str:
    """One expression for several patterns; empty for none."""
    return "|".join(f"(?:{glob_regex(one)})" for one in globs)


def _texts(paths: pa.Array) -> pa.StringArray:
    """Paths as text; a byte that is none counts as some character."""
    try:
        return paths.cast(pa.string())
    except pa.ArrowInvalid:
        names = (decode(one) for one in paths.to_pylist())
        return pa.array([one.encode("utf-8", "replace").decode() for one in names], pa.string())
