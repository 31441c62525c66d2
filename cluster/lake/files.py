"""Data files of the lake: Parquet with the statistics the Delta log needs."""

import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from cluster.lake.layout import data_path
from cluster.storage import Storage
from schemas.tables import TABLES, TableSchema

_LONGEST_STATISTIC = 64
"""Longer strings are cut in the statistics, which would swell the log."""
_LAST_CHARACTER = "\U0010ffff"


@dataclass(frozen=True)
class DataFile:
    """A written file as a receipt lists it, ready to be added to its table."""

    path: str
    """Path below the lake's root."""
    size: int
    rows: int
    partition: Mapping[str, str] = field(default_factory=dict)
    minimum: Mapping[str, Any] = field(default_factory=dict)
    maximum: Mapping[str, Any] = field(default_factory=dict)
    nulls: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    def add_action(self, table: str) -> AddAction:
        """The entry of the Delta log that makes the file part of ``table``."""
        statistics = {
            "numRecords": self.rows,
            "minValues": self.minimum,
            "maxValues": self.maximum,
            "nullCount": self.nulls,
        }
        return AddAction(
            path=self.path.removeprefix(f"tables/{table}/"),
            size=self.size,
            partition_values=dict(self.partition),
            modification_time=int(datetime.now(UTC).timestamp() * 1000),
            data_change=True,
            stats=json.dumps(statistics),
        )


def write_rows(
    storage: Storage, table: str, rows: pa.Table, *, run_id: str, shard: str
) -> list[DataFile]:
    """Write rows of a table without ``run_id`` into new files, one a partition.

    Rows are sorted by the table's order, so that equal results give equal files.

    Raises:
        KeyError: if there is no such table.
        pa.ArrowInvalid: if the rows do not fit the table's schema.
    """
    described = TABLES[table]
    whole = rows.append_column("run_id", pa.array([run_id] * rows.num_rows, pa.string()))
    whole = whole.select(described.schema.names).cast(described.schema)
    whole = whole.sort_by([(column, "ascending") for column in described.sort_by])
    return [
        _write(storage, described, data_path(table, run_id, shard, partition), part, partition)
        for partition, part in _partitions(described, whole)
        if part.num_rows
    ]


def _partitions(
    described: TableSchema, rows: pa.Table
) -> Iterator[tuple[dict[str, str], pa.Table]]:
    if not described.partition_by:
        yield {}, rows
        return
    (column,) = described.partition_by
    for value in sorted(rows[column].unique().to_pylist()):
        # Delta keeps partition columns out of the files: the log holds their values.
        yield {column: value}, rows.filter(pc.equal(rows[column], value)).drop_columns([column])


def _write(
    storage: Storage, table: TableSchema, path: str, rows: pa.Table, partition: dict[str, str]
) -> DataFile:
    data = encode_parquet(rows, table.rows_per_group, table.compression)
    storage.put(path, data)
    minimum, maximum, nulls = _statistics(rows)
    return DataFile(path, len(data), rows.num_rows, partition, minimum, maximum, nulls)


def encode_parquet(
    rows: pa.Table, rows_per_group: int = 122_880, compression: str = "zstd"
) -> bytes:
    """A table as the bytes of a Parquet file, with statistics."""
    buffer = io.BytesIO()
    # Pixels repeat in no dictionary and are in no order: looking for either costs time only.
    plain = [one.name for one in rows.schema if not pa.types.is_binary(one.type)]
    options = plain if len(plain) < rows.num_columns else True
    pq.write_table(
        rows,
        buffer,
        compression=compression,
        row_group_size=rows_per_group,
        use_dictionary=options,
        write_statistics=options,
    )
    return buffer.getvalue()


def decode_parquet(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """The table in the bytes of a Parquet file, or some of its columns."""
    return pq.read_table(pa.BufferReader(data), columns=columns)


def _statistics(rows: pa.Table) -> tuple[dict[str, Any], dict[str, Any], dict[str, int]]:
    minimum: dict[str, Any] = {}
    maximum: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for name in rows.column_names:
        column = rows[name]
        if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
            continue
        nulls[name] = column.null_count
        # Every column with a value needs its bounds: deltalake's own Arrow dataset takes a column
        # without them for one that can match nothing.
        bounds = pc.min_max(column).as_py()
        low, high = _json_value(bounds["min"]), _json_value(bounds["max"])
        if low is not None and high is not None:
            minimum[name], maximum[name] = low, _at_least(high, bounds["max"])
    return minimum, maximum, nulls


def _json_value(value: Any) -> Any:
    """A bound as the Delta log writes it, or nothing if there is none."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str):
        return value[:_LONGEST_STATISTIC]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _at_least(shown: Any, value: Any) -> Any:
    """An upper bound that cutting has not made smaller than the value."""
    return f"{shown}{_LAST_CHARACTER}" if shown != value and isinstance(value, str) else shown
