"""Arrow tables as text or bytes: a table for people, CSV, JSON, Parquet."""

import base64
import json
import math
import sys
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import csv, parquet

from cluster.cli.output import say, whole_file
from cluster.render import arrow_grid, console
from schemas.errors import UsageError

FORMATS = ("table", "csv", "json", "parquet")
_SUFFIXES: Mapping[str, str] = {".csv": "csv", ".json": "json", ".parquet": "parquet"}
_SHOWN_ROWS = 200
"""Rows a terminal shows of a table; every other format has them all."""


def chosen_format(given: str | None, output: Path | None) -> str:
    """The format asked for, or the one the file's ending says, or a table.

    Raises:
        UsageError: if there is no such format.
    """
    found = given or _SUFFIXES.get(output.suffix.lower() if output else "", "table")
    if found not in FORMATS:
        raise UsageError(
            "There is no such format",
            where="--format",
            got=found,
            remedy=f"use one of {', '.join(FORMATS)}",
        )
    return found


def write_rows(rows: pa.Table, form: str, output: Path | None) -> None:
    """Write rows to a file, whole or not at all, or to stdout.

    Raises:
        UsageError: if Parquet would go to a terminal, or the file can't be written.
    """
    if output is None:
        _write_stdout(rows, form)
        return
    with whole_file(output) as part:
        if form == "table":
            with part.open("w", encoding="utf-8") as text:
                console(text).print(arrow_grid(rows, rows.num_rows))
        else:
            with part.open("wb") as stream:
                _encode(rows, form, stream)
    say(f"{rows.num_rows:,} rows in {output}")


def _write_stdout(rows: pa.Table, form: str) -> None:
    if form == "table":
        limit = _SHOWN_ROWS if sys.stdout.isatty() else rows.num_rows
        console(sys.stdout).print(arrow_grid(rows, limit))
        if rows.num_rows > limit:
            say(f"{rows.num_rows - limit:,} more rows; --format csv, json or parquet has them all")
        return
    if form == "parquet" and sys.stdout.isatty():
        raise UsageError(
            "Parquet is no text for a terminal", remedy="add --output FILE.parquet, or redirect"
        )
    sys.stdout.flush()
    _encode(rows, form, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def _encode(rows: pa.Table, form: str, stream: BinaryIO) -> None:
    if form == "parquet":
        parquet.write_table(rows, stream, compression="zstd")
    elif form == "csv":
        csv.write_csv(_flat(rows), stream)
    else:
        for piece in _json_lines(rows):
            stream.write(piece.encode())


def _json_lines(rows: pa.Table) -> Iterator[str]:
    """A JSON array with one object a line."""
    yield "["
    separator = "\n"
    for batch in rows.to_batches():
        for row in batch.to_pylist():
            yield separator + json.dumps(plain(row), ensure_ascii=False)
            separator = ",\n"
    yield "\n]\n"


def _flat(rows: pa.Table) -> pa.Table:
    """Columns that CSV can hold: lists and structs become JSON, bytes base64."""
    columns = []
    for column in rows.columns:
        nested, binary = pa.types.is_nested(column.type), _is_binary(column.type)
        if nested or binary:
            texts = [_as_text(value, quoted=nested) for value in column.to_pylist()]
            columns.append(pa.array(texts, pa.string()))
        else:
            columns.append(column)
    return pa.table(columns, names=rows.schema.names)


def _as_text(value: Any, *, quoted: bool) -> str | None:
    if value is None:
        return None
    return json.dumps(plain(value), ensure_ascii=False) if quoted else str(plain(value))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def plain(value: Any) -> Any:
    """A value as JSON holds it: times in ISO 8601, bytes in base64, no NaN."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if value is None or isinstance(value, bool | int | str) else str(value)
