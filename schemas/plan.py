"""A plan says what a run will compute; a shard result says what became of one part of it."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import pyarrow as pa

from schemas.errors import RejectedImage


@dataclass(frozen=True)
class Counts:
    """Where the inputs of a run ended; every input is counted in exactly one field."""

    done: int = 0
    up_to_date: int = 0
    rejected: int = 0
    held: int = 0
    deferred: int = 0
    gone: int = 0

    @property
    def input(self) -> int:
        """The number of inputs: the sum of all outcomes."""
        return sum(getattr(self, one.name) for one in fields(self))

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            **{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)}
        )

    def to_dict(self) -> dict[str, int]:
        """Counts in the order of the command's JSON, `input` first."""
        return {"input": self.input} | {one.name: getattr(self, one.name) for one in fields(self)}


@dataclass(frozen=True)
class Plan:
    """What a run will compute, fixed before it starts.

    ``inputs`` has one row per unit of work in a fixed order; shard ``i`` is the rows
    ``bounds[i]:bounds[i + 1]``. Shards that read source bytes need the columns ``uri`` (as
    catalogued), ``etag`` (string) and ``bytes`` (int64).
    """

    kind: str
    name: str
    key: tuple[str, ...]
    """What this run alone may write, e.g. ``("clean", "kermany", "<recipe>")``."""
    identity: Mapping[str, Any]
    """Everything that changes the result, as JSON values; paths, devices and sizes stay out."""
    params: Mapping[str, Any]
    """What the work needs beside the inputs, as JSON values."""
    inputs: pa.Table
    bounds: tuple[int, ...]
    counts: Counts = field(default_factory=Counts)
    """What planning settled already: up to date, held, deferred, gone."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Findings of planning worth telling the user, as JSON values by label."""
    unit: str = "images"
    """What is counted: files for ingest, images elsewhere."""
    staged: Mapping[str, pa.Table] = field(default_factory=dict)
    """Tables that only the finishing step reads, beside what shards stage; names begin with `_`."""

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits; runs with equal fingerprints and equal keys do the same work."""
        return run_fingerprint(self.kind, self.identity)

    @property
    def shards(self) -> int:
        """The number of shards."""
        return max(len(self.bounds) - 1, 0)


@dataclass(frozen=True)
class ShardResult:
    """What one shard computed.

    ``tables`` holds rows without ``run_id``; tables whose name begins with ``_`` are staged for
    `finish` and never committed. ``done``, ``rejected`` and ``gone`` add up to the shard's inputs.
    """

    tables: Mapping[str, pa.Table]
    done: int
    rejected: int
    gone: int = 0
    """Inputs whose row says that they vanished; they add up with the others."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Relative path to content, written below ``params["target"]``; for kinds that make files."""
    facts: Mapping[str, int | float] = field(default_factory=dict)
    """Figures by label, added up over shards and shown to the user."""


@dataclass(frozen=True)
class PreparedPixels:
    """An image as a recipe made it, read from the table `prepared` instead of its source."""

    data: bytes
    """Losslessly encoded by `workers.pixels.encoding`."""
    height: int
    width: int
    geometry: str = ""
    """JSON: the way back to the original's pixels."""


Blob = bytes | PreparedPixels | RejectedImage
"""Source bytes, or pixels prepared earlier, or why there are neither."""

ShardFunction = Callable[[pa.Table, Sequence[Blob]], ShardResult]
"""Computes one shard from its rows of the plan and their source bytes."""

FinishFunction = Callable[[Mapping[str, pa.Table]], ShardResult]
"""Computes, from the staged tables of all shards, what needs to see them together."""


def fingerprint(value: object) -> str:
    """Hash a JSON value into sixteen hex digits, independent of key order.

    Raises:
        TypeError: if the value holds something JSON can't state exactly, such as NaN or a set.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise TypeError(f"a fingerprint takes finite JSON values only: {error}") from error
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def run_fingerprint(kind: str, identity: Mapping[str, Any]) -> str:
    """Fingerprint of the runs of ``kind`` that compute what ``identity`` states."""
    return fingerprint({"kind": kind, "identity": dict(identity)})


def shard_bounds(sizes: Sequence[int], *, images: int, max_bytes: int) -> tuple[int, ...]:
    """Cut inputs into shards of at most ``images`` rows and about ``max_bytes`` bytes.

    ``sizes`` are the bytes of each input in order; one input larger than ``max_bytes`` is a shard
    of its own. Returns the bounds, first 0, last ``len(sizes)``; ``()`` for no inputs.
    """
    if not sizes:
        return ()
    bounds, filled = [0], 0
    for row, size in enumerate(sizes):
        full = row - bounds[-1] >= images or (row > bounds[-1] and filled + size > max_bytes)
        if full:
            bounds.append(row)
            filled = 0
        filled += size
    return (*bounds, len(sizes))
