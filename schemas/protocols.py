"""What a job asks of the place it runs in: a store that remembers and a pool that computes."""

import datetime
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from schemas.plan import Counts, Plan, ShardResult
from schemas.specs.base import Execution


@dataclass(frozen=True)
class Report:
    """What became of a job."""

    kind: str
    name: str
    status: str
    """published, held, up_to_date, planned, waiting or failed."""
    run_id: str | None = None
    """The run that did the work; none when there was nothing to do."""
    counts: Counts = field(default_factory=Counts)
    unit: str = "images"
    """What is counted."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Findings worth telling, as JSON values by label."""
    cost: Mapping[str, float] = field(default_factory=dict)
    """``cpu_s`` and ``gpu_s``, seconds of processors, and each ``_per_thousand`` inputs; empty
    where they were not measured."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """Parts of the work that failed while the rest went on, and why: trials of a study, models of a
    night."""
    resumed: bool = False
    """Whether an earlier driver began the run; what came since is not in it."""

    @property
    def reject_share(self) -> float:
        """Rejects among the inputs this run worked on."""
        worked = self.counts.done + self.counts.rejected
        return self.counts.rejected / worked if worked else 0.0


@dataclass(frozen=True)
class Verdict:
    """What the publish gate says of a run."""

    holds: bool
    """Whether the run's rows stay out of sight until a person decides."""
    facts: Mapping[str, Any]
    """What was measured, as JSON values by label; they become facts of the run."""


@dataclass(frozen=True)
class SourceFile:
    """A file of an archive as a listing shows it."""

    uri: str
    path: str
    """Path relative to the source, with forward slashes."""
    bytes: int
    etag: str


LISTING = pa.schema(
    [("uri", pa.binary()), ("path", pa.binary()), ("bytes", pa.int64()), ("etag", pa.string())]
)
"""Columns of a batch of `SourceFile`; uris and paths as bytes, since a name need not be UTF-8."""


class Run(Protocol):
    """A run that holds its lease: planned, perhaps half done."""

    @property
    def id(self) -> str:
        """Begins with the UTC time of its start."""

    @property
    def plan(self) -> Plan:
        """What the run computes; read back from the lake when it is resumed."""

    @property
    def resumed(self) -> bool:
        """Whether an earlier driver began it."""

    def pending(self) -> list[str]:
        """Names of the shards that have no receipt yet."""

    def record(self, shard: str, result: ShardResult) -> bool:
        """Write a shard's tables and its receipt; says whether it was the first of the shard."""

    def staged(self, table: str) -> pa.Table:
        """All rows that shards staged under ``table`` (its name begins with `_`)."""

    def written(self, table: str, columns: list[str]) -> pa.Table:
        """What all shards wrote to a table, whether it is visible yet or not."""

    def outcomes(self) -> Counts:
        """What became of the inputs, once every shard has its receipt."""


class Store(Protocol):
    """The lake as a job sees it, and the archives beside it."""

    @property
    def root(self) -> str:
        """Where the lake lies."""

    @property
    def night(self) -> datetime.date:
        """The night that runs begun here belong to: today, unless the command was told another."""

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """Rows of published runs, by SQL over the lake's tables and views.

        A table nobody wrote to yet has no rows. Parameters are named: ``$dataset``.
        """

    def batches(
        self, sql: str, parameters: Mapping[str, Any] | None = None, *, rows: int
    ) -> AbstractContextManager[pa.RecordBatchReader]:
        """Like `query`, up to ``rows`` rows at a time."""

    def snapshot(self) -> AbstractContextManager[None]:
        """Let all queries of the block see the lake as it stands at its first one."""

    def lease(self, key: tuple[str, ...]) -> AbstractContextManager[None]:
        """Hold ``key`` alone until the block ends.

        Raises:
            LeaseHeld: if another driver holds it.
        """

    def unfinished(self, plan_key: tuple[str, ...], fingerprint: str) -> Run | None:
        """The run an earlier driver left unfinished; one of another fingerprint is abandoned."""

    def begin(self, plan: Plan, spec: Mapping[str, Any]) -> Run:
        """Fix a plan as a new run."""

    def commit(
        self, run: Run, seconds: Mapping[str, float], verdict: Verdict | None = None
    ) -> Report:
        """Check that the counts reconcile and every file exists, then make the rows visible.

        Where the gate's ``verdict`` holds the run, its rows are staged and stay out of sight.

        Raises:
            CountsMismatch: if an input is missing or counted twice.
            CommitConflict: if another run committed under the same key meanwhile.
        """

    def last_run(self, key: tuple[str, ...]) -> Mapping[str, Any] | None:
        """The ``fingerprint`` and ``facts`` of the newest published run of ``key``, if any."""

    def runs_of(self, key: tuple[str, ...]) -> Iterable[Mapping[str, Any]]:
        """The held and published runs of ``key``, newest first, as rows of `runs`."""

    def held_images(self, key: tuple[str, ...]) -> pa.Array:
        """Ids of images whose rows wait in a held run of ``key``."""

    def prepared(self, recipe: str, image_ids: pa.ChunkedArray) -> pa.Table:
        """Where pixels prepared by ``recipe`` lie, of those images that have some.

        Columns ``image_id``; ``prepared``, the path of a file below the lake's root, as a
        dictionary; and ``bytes``, about what the image's pixels take in it.
        """

    def list_source(self, uri: str) -> Iterable[SourceFile]:
        """The files of an archive, sorted by path."""

    def list_batches(self, uri: str) -> Iterable[pa.RecordBatch]:
        """Like `list_source`, thousands of files at a time; columns of `LISTING`."""

    def read_source(self, uri: str) -> bytes:
        """One file, such as a metadata CSV."""

    def digest_source(self, uri: str) -> str:
        """The hash of one file, such as weights, as `schemas.bundle.digest` takes it."""

    def bundle(self, reference: str) -> Mapping[str, Any]:
        """The row of `models` and the ``uri`` of a bundle, by ``name`` or ``name@version``.

        Raises:
            BundleError: if there is none; names those that exist.
        """

    def put_bundle(self, run: Run, name: str, files: Mapping[str, bytes]) -> tuple[int, str]:
        """Write a bundle whole under the next free version; returns version and uri.

        A resumed run finds the bundle it wrote before.
        """


class Pool(Protocol):
    """Processes that compute shards and train models."""

    def run_shards(self, run: Run, execution: Execution) -> None:
        """Compute every pending shard of a run and put its receipt."""

    def finish(self, run: Run) -> None:
        """Compute the finishing step of the run's kind, if it has one that is not done yet."""

    def train(self, run: Run, config: Mapping[str, Any], workers: int) -> Mapping[str, bytes]:
        """Train with ``workers`` processes; returns the files of the finished training."""

    def measure_drift(
        self, scores: pa.Table, reference: pa.Table, model: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """How far scores moved from a reference: see `workers.metrics.drift.measure_drift`."""


PlanFunction = Callable[[], Plan]
"""Makes a kind's plan; called under the lease, only when no unfinished run is resumed."""
