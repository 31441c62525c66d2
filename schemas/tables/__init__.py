"""The tables of the lake: every column, its type, its unit and its meaning."""

from collections.abc import Mapping
from types import MappingProxyType

import pyarrow as pa

from schemas.tables.archive import ARCHIVE
from schemas.tables.columns import TableSchema
from schemas.tables.findings import FINDINGS
from schemas.tables.models import MODELS
from schemas.tables.runs import RUNS

__all__ = ["FORMAT_VERSION", "TABLES", "TableSchema", "rows_of"]

FORMAT_VERSION = 2
"""The version written to `lake.json`; a lake of another version is refused."""

TABLES: Mapping[str, TableSchema] = MappingProxyType(
    {one.name: one for one in (*ARCHIVE, *MODELS, *FINDINGS, *RUNS)}
)
"""All tables of a lake by name."""


def rows_of(name: str, rows: list[dict[str, object]]) -> pa.Table:
    """Make an Arrow table of ``name``'s columns without ``run_id``; missing values are null."""
    schema = TABLES[name].schema
    return pa.Table.from_pylist(rows, schema=schema.remove(schema.get_field_index("run_id")))
