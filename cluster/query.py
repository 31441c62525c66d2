"""The lake for whoever asks: queries, what there is to query, and plain Parquet snapshots."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.lake.layout import LAKE_FILE
from cluster.lake.reader import LakeReader
from cluster.lake.store import LakeStore
from cluster.lake.views import VIEWS
from schemas.errors import LakeError, UsageError
from schemas.jobtree import hint
from schemas.tables import TABLES

_GROUP_ROWS = 122_880
_GROUP_BYTES = 128 * 2**20
"""A row group of an export ends at either: rows may hold the pixels of an image."""
_QUERY_MB = 1024
"""What DuckDB may hold in memory for a person's query; the rest spills to disk."""


@dataclass(frozen=True)
class ColumnInfo:
    """A column of a table or view."""

    name: str
    type: str
    """Arrow's name of the type."""
    unit: str
    description: str


@dataclass(frozen=True)
class TableInfo:
    """A table or view of the lake."""

    name: str
    kind: str
    """table or view."""
    rows: int
    """Rows of published runs."""
    description: str
    """What one row is."""
    columns: tuple[ColumnInfo, ...]


class LakeQuery:
    """A lake that is open for questions."""

    def __init__(self, reader: LakeReader) -> None:
        self.reader = reader

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """Rows of one SELECT; see `LakeReader.query`."""
        return self.reader.query(sql, parameters)

    def tables(self) -> list[TableInfo]:
        """Every table and view; tables are counted off the log, views by reading them."""
        return [self._describe(name) for name in (*TABLES, *VIEWS)]

    def columns(self, name: str) -> tuple[ColumnInfo, ...]:
        """The columns of a table or view; nothing is counted.

        Raises:
            UsageError: if there is none of that name.
        """
        described = TABLES.get(name) or VIEWS.get(name)
        if described is None:
            there_are = (*TABLES, *VIEWS)
            raise UsageError(
                f"There is no such table or view{hint(name, there_are)}",
                got=name,
                remedy=f"there are: {', '.join(there_are)}",
            )
        return tuple(_column(field) for field in described.schema)

    def _describe(self, name: str) -> TableInfo:
        described = TABLES.get(name) or VIEWS[name]
        return TableInfo(
            name=name,
            kind="table" if name in TABLES else "view",
            rows=self.reader.count(name),
            description=described.row,
            columns=self.columns(name),
        )

    def export(self, target: Path, names: Sequence[str] = ()) -> Mapping[str, int]:
        """Write tables and views as plain Parquet files, a folder each; all when none is named.

        ``target`` appears when everything is in it. Files keep units and descriptions in the
        metadata of their fields. Returns the rows of each.

        Raises:
            UsageError: if a name is unknown, or ``target`` is no new or empty directory.
        """
        unknown = [name for name in names if name not in TABLES and name not in VIEWS]
        if unknown:
            raise UsageError(
                "The lake has no such table or view",
                got=", ".join(unknown),
                remedy=f"it has {', '.join((*TABLES, *VIEWS))}",
            )
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UsageError(
                "An export needs a new or empty directory",
                got=str(target),
                remedy="name another one, or empty it first",
            )
        target = target.absolute()
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{uuid4().hex[:8]}.part")
        try:
            rows = {name: self._write(name, part / name) for name in names or (*TABLES, *VIEWS)}
            part.replace(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return rows

    def _write(self, name: str, folder: Path) -> int:
        folder.mkdir(parents=True)
        schema = (TABLES.get(name) or VIEWS[name]).schema
        path = folder / f"{name}.parquet"
        written = 0
        with (
            self.reader.batches(f'SELECT * FROM "{name}"') as batches,
            pq.ParquetWriter(path, schema, compression="zstd") as writer,
        ):
            for group in _row_groups(batches):
                writer.write_table(group.cast(schema), row_group_size=_GROUP_ROWS)
                written += group.num_rows
        return written


def open_query(root: str, as_of: datetime | None = None) -> LakeQuery:
    """Open a lake for reading, as it stands or as it stood at ``as_of``.

    Raises:
        LakeError: if there is no lake at ``root``, or one of another format.
        QueryError: if ``as_of`` has no time zone.
    """
    storage = LakeStore.peek(root).storage
    if storage.head(LAKE_FILE) is None:
        raise LakeError("There is no lake", where=root, remedy="run a job into it, or check --lake")
    return LakeQuery(LakeReader(storage, as_of, memory_mb=_QUERY_MB))


def _row_groups(batches: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """The batches joined to row groups of at most `_GROUP_ROWS` rows."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if waiting and (rows + batch.num_rows > _GROUP_ROWS or size >= _GROUP_BYTES):
            yield pa.Table.from_batches(waiting)
            waiting, rows, size = [], 0, 0
        waiting.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
    if waiting:
        yield pa.Table.from_batches(waiting)


def _column(field: pa.Field) -> ColumnInfo:
    notes = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    return ColumnInfo(
        field.name, str(field.type), notes.get("unit", ""), notes.get("description", "")
    )
