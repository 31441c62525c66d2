"""Little lakes written straight through deltalake, apart from the code that writes real ones."""

import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from deltalake.transaction import AddAction

from cluster.lake.reader import LakeReader
from cluster.storage import open_storage
from schemas.tables import FORMAT_VERSION, TABLES, rows_of

START = datetime(2026, 11, 1, tzinfo=UTC)
Rows = Sequence[Mapping[str, Any]]


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


class SmallLake:
    """A lake to which tests add files, run states and compactions one by one."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.storage = open_storage(root)
        self.storage.put("lake.json", json.dumps({"format": FORMAT_VERSION}).encode())
        self._clock = 0

    def reader(self, as_of: datetime | None = None) -> LakeReader:
        return LakeReader(self.storage, as_of)

    def table(self, name: str) -> DeltaTable:
        return DeltaTable(
            self.storage.delta_uri(name), storage_options=self.storage.delta_options or None
        )

    def add(self, name: str, run: str, rows: Rows, *, statistics: bool = True) -> None:
        """Commit rows of a run as one file a partition, saying nothing of the run's state."""
        described = TABLES[name]
        table = rows_of(name, [dict(row) for row in rows])
        table = table.append_column("run_id", pa.array([run] * table.num_rows, pa.string()))
        parts = {"": table}
        if described.partition_by:
            (column,) = described.partition_by
            parts = {
                value: table.filter(pc.equal(table[column], value)).drop_columns([column])
                for value in table[column].unique().to_pylist()
            }
        actions = [
            self._write(name, part, value, statistics=statistics) for value, part in parts.items()
        ]
        self._handle(name).create_write_transaction(
            actions,
            mode="append",
            schema=described.schema,
            partition_by=list(described.partition_by) or None,
        )

    def state(
        self, run: str, state: str, recorded_at: datetime | None = None, **more: object
    ) -> None:
        """Add a row about a run to `runs`; without a time, a minute after the last one."""
        self._clock += 1
        row = {"kind": "toy", "state": state, "recorded_at": recorded_at or at(self._clock)}
        self.add("runs", run, [row | more])

    def publish(self, run: str, **tables: Rows) -> None:
        """Commit rows of a run to tables, then say that it is published."""
        for name, rows in tables.items():
            self.add(name, run, rows)
        self.state(run, "published")

    def compact(self, name: str) -> None:
        self.table(name).optimize.compact()

    def _handle(self, name: str) -> DeltaTable:
        try:
            return self.table(name)
        except TableNotFoundError:
            described = TABLES[name]
            return DeltaTable.create(
                self.storage.delta_uri(name),
                described.schema,
                partition_by=list(described.partition_by) or None,
                storage_options=self.storage.delta_options or None,
            )

    def _write(self, name: str, rows: pa.Table, value: str, *, statistics: bool) -> AddAction:
        partition = dict(zip(TABLES[name].partition_by, [value], strict=False))
        folder = "".join(f"{column}={text}/" for column, text in partition.items())
        path = f"{folder}{rows['run_id'][0].as_py()}-00000-{uuid4().hex}.parquet"
        buffer = io.BytesIO()
        pq.write_table(rows, buffer)
        self.storage.put(f"tables/{name}/{path}", buffer.getvalue())
        return AddAction(
            path,
            len(buffer.getvalue()),
            partition,
            0,
            True,
            json.dumps(_statistics(rows)) if statistics else "{}",
        )


def _statistics(rows: pa.Table) -> dict[str, Any]:
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    for name in {"run_id", "state", "recorded_at", "image_id"} & set(rows.column_names):
        bounds = pc.min_max(rows[name]).as_py()
        if bounds["min"] is not None:
            low[name], high[name] = _text(bounds["min"]), _text(bounds["max"])
    return {"numRecords": rows.num_rows, "minValues": low, "maxValues": high, "nullCount": {}}


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def image(image_id: str, uri: str = "", **columns: Any) -> dict[str, Any]:
    """A row of `images`, present, in data set d."""
    return {
        "image_id": image_id,
        "dataset": "d",
        "uri": uri or f"/archive/{image_id}.png",
        "frame": 0,
        "seen_at": at(0),
        "state": "present",
        **columns,
    }


def prediction(image_id: str, model_id: str, *scores: float) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "model_id": model_id,
        "scores": list(scores),
        "score": max(scores),
        "backend": "toy",
        "scored_at": at(0),
    }
