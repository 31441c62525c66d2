"""Queries over the lake's tables and views, read-only and over published runs alone.

DuckDB reads the files that the Delta log names: by path on disk, on S3 by the path of a copy or
through Arrow datasets (its own S3 client is an extension that would have to be downloaded). Each
query gets a connection of its own that knows just the tables the query names. A reader looks at the
lake once: `runs` first, every other table when it is first needed. Runs commit `runs` last, so
whatever is published in that snapshot lies in the tables opened after it.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import cached_property
from itertools import chain, islice
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from cluster.lake.copies import Copies
from cluster.lake.engine import PLANNING_MB, more_memory, settings
from cluster.lake.locating import locate
from cluster.lake.rivals import Rivals
from cluster.lake.snapshot import LakeFile, RunRow, TableSnapshot, last_words, may_show
from cluster.lake.statements import (
    check_statement,
    columns,
    literal,
    named,
    parquet,
    query_error,
    told_batches,
)
from cluster.lake.view import View
from cluster.lake.views import VIEWS
from cluster.own_folders import passing_folder
from cluster.storage import Storage
from schemas.errors import QueryError
from schemas.reasons import RunState
from schemas.tables import TABLES

_PUBLISHED = "_published"
_BATCH_ROWS = 2048
"""Rows of a record batch: a row may hold the pixels of an image."""

_Taken = TypeVar("_Taken")


class LakeReader:
    """The lake as it stands when the reader first looks, or as it stood at ``as_of``."""

    def __init__(
        self,
        storage: Storage,
        as_of: datetime | None = None,
        *,
        memory_mb: int = PLANNING_MB,
        rivals: Rivals | None = None,
        copies: Copies | None = None,
    ) -> None:
        """``memory_mb`` bounds DuckDB; what does not fit spills to a private temporary folder.

        Readers of one lake may share what they found out in ``rivals``, and ``copies`` of what lies
        in a store; without those, files are read where they lie.

        Not all that a query holds can spill. One that fails for want of memory is run again with
        more, up to half of what is free.

        Raises:
            QueryError: if ``as_of`` has no time zone.
        """
        if as_of is not None and as_of.tzinfo is None:
            raise QueryError(
                "A time to look back at needs a time zone",
                got=as_of.isoformat(),
                remedy="write it like 2026-11-21T08:00:00Z",
            )
        self.storage, self.as_of = storage, as_of
        self._memory_mb = memory_mb
        self._snapshots: dict[str, TableSnapshot] = {}
        self._runs: dict[str, RunRow] | None = None
        self._rivals, self._copies = rivals or Rivals(), copies

    def published(self) -> frozenset[str]:
        """The runs whose rows are visible."""
        return self._published

    @cached_property
    def _published(self) -> frozenset[str]:
        published = (one for one in self.runs().values() if one.state == RunState.PUBLISHED)
        return frozenset(one.run_id for one in published)

    def runs(self) -> Mapping[str, RunRow]:
        """Where each run stands; off the log, without a query, since each run is a file."""
        if self._runs is None:
            self._runs = last_words(self._snapshot("runs"), self.as_of)
        return self._runs

    def last_run(self, key: tuple[str, ...]) -> Mapping[str, Any] | None:
        """The newest published run of a key: its ``fingerprint`` and its ``facts``."""
        whose = "/".join(key)
        ours = [
            one
            for one in self.runs().values()
            if one.key == whose and one.state == RunState.PUBLISHED
        ]
        if not ours:
            return None
        newest = max(ours, key=lambda one: one.recorded_at)
        wanted = ["fingerprint", "facts", "state"]
        rows = self._snapshot("runs").rows_of_run(newest.run_id, wanted).to_pylist()
        (row,) = (one for one in rows if one["state"] == RunState.PUBLISHED)
        return {"fingerprint": row["fingerprint"], "facts": json.loads(row["facts"] or "{}")}

    def runs_of(self, key: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
        """The held and published runs of a key, newest first, as `runs` last says of each.

        Rows of other runs are not read: over the years `runs` has as many files as there were runs.
        """
        whose, standing = "/".join(key), (RunState.HELD, RunState.PUBLISHED)
        ours = [one for one in self.runs().values() if one.key == whose and one.state in standing]
        for run in sorted(ours, key=lambda one: one.run_id, reverse=True):
            rows = self._snapshot("runs").rows_of_run(run.run_id, TABLES["runs"].schema.names)
            told = [row for row in rows.to_pylist() if row["recorded_at"] <= run.recorded_at]
            yield max(told, key=lambda row: row["recorded_at"])

    def files(self, table: str) -> tuple[LakeFile, ...]:
        """The files of a table that may hold visible rows."""
        if table == "runs":
            return self._snapshot(table).files
        published = self.published()
        return tuple(one for one in self._snapshot(table).files if may_show(one, published))

    def count(self, name: str) -> int:
        """Visible rows of a table or view; off the log where no file needs to be looked into."""
        if name in TABLES and not (name == "runs" and self.as_of):
            rows = [one.rows if self._is_plain(name, one) else None for one in self.files(name)]
            if None not in rows:
                return sum(one or 0 for one in rows)
        counted = self.query(f'SELECT count(*) AS n FROM "{name}"')
        return int(counted["n"][0].as_py())

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """Rows of one SELECT over the lake's tables and views; parameters are named: ``$dataset``.

        Times come in UTC. Without ORDER BY the order of the rows is open.

        Raises:
            QueryError: if the statement is no SELECT, reaches outside the lake, or fails.
        """
        rows, opened = self._open(sql, parameters, lambda found: found.to_arrow_table())
        opened.close()
        return rows

    @contextmanager
    def batches(
        self, sql: str, parameters: Mapping[str, Any] | None = None, rows: int = _BATCH_ROWS
    ) -> Iterator[pa.RecordBatchReader]:
        """Like `query`, up to ``rows`` rows at a time, for results of any size.

        What was handed out can't be taken back, so the memory is raised only where there is too
        little of it for the first batch.

        Raises:
            QueryError: as `query` does; also by what is yielded, while it is read.
        """

        def begin(found: duckdb.DuckDBPyRelation) -> pa.RecordBatchReader:
            reader = found.to_arrow_reader(rows)
            batches = told_batches(reader)
            first = list(islice(batches, 1))
            return pa.RecordBatchReader.from_batches(reader.schema, chain(first, batches))

        reader, opened = self._open(sql, parameters, begin)
        with opened:
            yield reader

    def locate(
        self, table: str, partition: Mapping[str, str], image_ids: pa.ChunkedArray
    ) -> pa.Table:
        """The file of one partition that holds each image's row, of those images that have one.

        Columns ``image_id``, ``<table>`` (path below the lake's root, as a dictionary) and
        ``bytes`` (the file's size over its rows). Only the ids are read.
        """
        files = [one for one in self.files(table) if one.partition == partition]
        return locate(self._snapshot(table), files, self.published(), image_ids)

    def _open(
        self,
        sql: str,
        parameters: Mapping[str, Any] | None,
        take: Callable[[duckdb.DuckDBPyRelation], _Taken],
    ) -> tuple[_Taken, ExitStack]:
        """What ``take`` makes of a query, and what is to be closed after it.

        All of it is done again with more memory where there was too little.
        """
        memory_mb = self._memory_mb
        while True:
            try:
                with ExitStack() as opened:
                    taken = take(opened.enter_context(self._relation(sql, parameters, memory_mb)))
                    return taken, opened.pop_all()
            except QueryError as error:
                starved = isinstance(error.__cause__, duckdb.OutOfMemoryException)
                more_mb = more_memory(memory_mb) if starved else None
                if more_mb is None:
                    raise
                memory_mb = more_mb

    @contextmanager
    def _relation(
        self, sql: str, parameters: Mapping[str, Any] | None, memory_mb: int
    ) -> Iterator[duckdb.DuckDBPyRelation]:
        try:
            check_statement(sql)
            with self._connect(named(sql), memory_mb) as connection:
                yield connection.sql(sql, params=dict(parameters) if parameters else None)
        except (duckdb.Error, pa.ArrowException) as error:
            raise query_error(error) from error

    @contextmanager
    def _connect(self, names: Sequence[str], memory_mb: int) -> Iterator[duckdb.DuckDBPyConnection]:
        tables = [name for name in names if name in TABLES]
        # A folder that only this user can read: what spills may be rows about patients.
        with (
            passing_folder("query") as spill,
            duckdb.connect(config=settings(spill, memory_mb)) as connection,
        ):
            connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
            # Asked for once: what is not allowed here can't be read below.
            paths = {name: self._paths(name, self.files(name)) for name in tables}
            allowed = [path for one in paths.values() if one for path in one.values()]
            connection.execute(f"SET allowed_paths = {literal(allowed)}")
            connection.execute("SET enable_external_access = false")
            runs = pa.array(sorted(self.published()), pa.string())
            connection.register(_PUBLISHED, pa.table({"run_id": runs}))
            for name in tables:
                select = self._select(connection, name, paths[name])
                connection.execute(f'CREATE VIEW "{name}" AS {select}')
            for name in names:
                if name in VIEWS:
                    self._create_view(connection, VIEWS[name])
            connection.execute("SET lock_configuration = true")
            yield connection

    def _create_view(self, connection: duckdb.DuckDBPyConnection, view: View) -> None:
        if view.hashes:
            files = [one for name in named(view.hashes) for one in self.files(name)]
            self._rivals.put(connection, view, files, self.published())
        connection.execute(f'CREATE VIEW "{view.name}" AS {view.sql}')

    def _snapshot(self, table: str) -> TableSnapshot:
        if table != "runs":
            self.published()  # `runs` is read before any table it speaks of
        if table not in self._snapshots:
            self._snapshots[table] = TableSnapshot(self.storage, table)
        return self._snapshots[table]

    def _paths(self, table: str, files: Sequence[LakeFile]) -> dict[str, str] | None:
        """Where a table's files lie on this machine's disk; nothing if not all of them do."""
        if self.storage.local_path is not None:
            return {file.path: f"{self.storage.delta_uri(table)}/{file.path}" for file in files}
        return None if self._copies is None else self._copies.of(table, files)

    def _is_plain(self, table: str, file: LakeFile) -> bool:
        """Whether every row of a visible file is visible; a compacted one may hold others."""
        return table == "runs" or file.run_id is not None

    def _select(
        self, connection: duckdb.DuckDBPyConnection, table: str, paths: Mapping[str, str] | None
    ) -> str:
        """SQL of a table: its files, grouped by partition and by whether rows must be checked.

        ``paths`` are those on this machine's disk, by the files' own.
        """
        groups: dict[tuple[tuple[tuple[str, str], ...], bool], list[LakeFile]] = {}
        for file in self.files(table):
            key = tuple(file.partition.items()), self._is_plain(table, file)
            groups.setdefault(key, []).append(file)
        if not groups:
            connection.register(f"_{table}", TABLES[table].schema.empty_table())
            return f'SELECT * FROM "_{table}"'
        selects = []
        for number, ((partition, plain), files) in enumerate(groups.items()):
            if paths is None:
                source = f'"_{table}_{number}"'
                dataset = self._snapshot(table).dataset(files)
                connection.register(f"_{table}_{number}", dataset)
            else:
                source = parquet([paths[file.path] for file in files])
            selects.append(
                f"SELECT {columns(table, dict(partition))} FROM {source}"
                + ("" if plain else f" WHERE run_id IN (SELECT run_id FROM {_PUBLISHED})")
            )
        if table == "runs" and self.as_of is not None:
            moment = self.as_of.isoformat()
            selects = [f"{one} WHERE recorded_at <= TIMESTAMPTZ '{moment}'" for one in selects]
        return " UNION ALL ".join(selects)
