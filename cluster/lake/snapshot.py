"""The data files of the lake's tables as the Delta log lists them, and which runs are published.

A snapshot never opens a data file where the log's statistics answer: it knows of each file its
size, its rows and the first and last run in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pd
import pyarrow.fs as pa_fs
from deltalake.fs import DeltaStorageHandler

from cluster.lake.commit import DELTA_ERRORS, open_table
from cluster.storage import Storage
from schemas.errors import LakeError
from schemas.reasons import RunState
from schemas.tables import TABLES


@dataclass(frozen=True)
class LakeFile:
    """A data file of a table."""

    path: str
    """Path below the table's folder."""
    bytes: int
    rows: int | None
    """Unknown where the log holds no statistics."""
    first_run: str | None
    last_run: str | None
    partition: Mapping[str, str]
    """Value of each partition column; Delta keeps these columns out of the file."""

    @property
    def run_id(self) -> str | None:
        """The only run in the file; none where there may be several."""
        return self.first_run if self.first_run == self.last_run else None


class TableSnapshot:
    """One table at the version it had when it was opened; one nobody wrote to has no files."""

    def __init__(self, storage: Storage, name: str) -> None:
        self.name = name
        self.schema = TABLES[name].schema
        self._storage = storage
        self._log = _log_entries(storage, name)
        self.files = _files(self._log, TABLES[name].partition_by)

    def dataset(self, files: Sequence[LakeFile]) -> pd.Dataset:
        """What is in ``files`` as an Arrow dataset; partition columns are not in them.

        deltalake's own `to_pyarrow_dataset` gives each file a condition made of its statistics,
        which for a column without any reads ``uri >= null`` and drops the file from a filter.
        """
        handler = DeltaStorageHandler(
            self._storage.delta_uri(self.name),
            self._storage.delta_options or None,
            {file.path: file.bytes for file in files},
        )
        filesystem = pa_fs.PyFileSystem(handler)
        # Whole column chunks at a time: a store answers slowly, and then with many bytes.
        options = pd.ParquetFragmentScanOptions(pre_buffer=True)
        form = pd.ParquetFileFormat(default_fragment_scan_options=options)
        inside = [one for one in self.schema if one.name not in TABLES[self.name].partition_by]
        return pd.FileSystemDataset(
            [form.make_fragment(file.path, filesystem) for file in files],
            schema=pa.schema(inside),
            format=form,
            filesystem=filesystem,
        )

    def rows_of_run(self, run_id: str, columns: list[str]) -> pa.Table:
        """The rows of one run; only files that may hold some are opened."""
        files = [
            one
            for one in self.files
            if one.first_run is None
            or one.last_run is None
            or one.first_run <= run_id <= one.last_run
        ]
        if not files:
            return self.schema.empty_table().select(columns)
        return self.dataset(files).to_table(columns=columns, filter=pd.field("run_id") == run_id)

    def rows(self, columns: list[str]) -> pa.Table:
        """All rows, published or not; rows that are a file of their own come off the log."""
        alone = _single_rows(self._log, columns)
        known = set(alone["path"].to_pylist())
        others = [file for file in self.files if file.path not in known]
        described = pa.schema([self.schema.field(name) for name in columns])
        parts = [alone.select(columns).cast(described)]
        if others:
            parts.append(self.dataset(others).to_table(columns=columns).cast(described))
        return pa.concat_tables(parts)


@dataclass(frozen=True)
class RunRow:
    """The last word on a run in `runs`."""

    run_id: str
    key: str
    """The lease's key, joined by slashes."""
    state: str
    recorded_at: datetime


def last_words(runs: TableSnapshot, as_of: datetime | None) -> dict[str, RunRow]:
    """The last row of each run up to ``as_of``, by run.

    Of two rows of the same microsecond the one that hides the run counts.
    """
    rows = runs.rows(["run_id", "key", "state", "recorded_at"])
    if as_of is not None:
        rows = rows.filter(pc.less_equal(rows["recorded_at"], pa.scalar(as_of)))
    last: dict[str, RunRow] = {}
    for values in zip(*(column.to_pylist() for column in rows), strict=True):
        row = RunRow(*values)
        last[row.run_id] = max(last.get(row.run_id, row), row, key=_rank)
    return last


def _rank(row: RunRow) -> tuple[datetime, bool]:
    return row.recorded_at, row.state != RunState.PUBLISHED


def may_show(file: LakeFile, published: frozenset[str]) -> bool:
    """Whether a file may hold rows of published runs."""
    return file.run_id is None or file.run_id in published


def _log_entries(storage: Storage, name: str) -> pa.Table:
    try:
        delta = open_table(storage, name)
    except DELTA_ERRORS as error:
        raise LakeError(
            "A table of the lake can't be opened", where=name, got=type(error).__name__
        ) from error
    if delta is None:
        return pa.table({"path": pa.array([], pa.string())})
    return pa.table(delta.get_add_actions(flatten=True))


def _files(log: pa.Table, partition_by: tuple[str, ...]) -> tuple[LakeFile, ...]:
    columns = ("path", "size_bytes", "num_records", "min.run_id", "max.run_id")
    partitions = [f"partition.{column}" for column in partition_by]
    listed = (_column(log, name).to_pylist() for name in (*columns, *partitions))
    return tuple(
        LakeFile(
            path,
            size,
            rows,
            first,
            last,
            MappingProxyType(dict(zip(partition_by, values, strict=True))),
        )
        for path, size, rows, first, last, *values in zip(*listed, strict=True)
    )


def _column(log: pa.Table, name: str) -> pa.ChunkedArray | pa.Array:
    """A column of the log; a log without that statistic knows nothing of it."""
    return log[name] if name in log.column_names else pa.nulls(log.num_rows, pa.int64())


def _single_rows(log: pa.Table, columns: list[str]) -> pa.Table:
    """Files of one row whose ``columns`` stand in the log's statistics, with their paths.

    A run adds one such row to `runs`: without this, a reader would open thousands of files
    to learn which runs are published.
    """
    lows = [_column(log, f"min.{name}") for name in columns]
    highs = [_column(log, f"max.{name}") for name in columns]
    exact = pc.equal(_column(log, "num_records"), pa.scalar(1, pa.int64()))
    for low, high in zip(lows, highs, strict=True):
        exact = pc.and_(pc.fill_null(exact, False), pc.fill_null(pc.equal(low, high), False))
    named = pa.table([log["path"], *lows], names=["path", *columns])
    return named.filter(exact)
