"""What a view of the lake is, and how its columns are described."""

from dataclasses import dataclass

import pyarrow as pa

from schemas.tables import TABLES


@dataclass(frozen=True)
class View:
    """One view of the lake."""

    name: str
    row: str
    """What one row is."""
    needs: tuple[str, ...]
    """The tables and views it reads."""
    sql: str
    schema: pa.Schema
    """Its columns; units and descriptions stand in the metadata of the fields."""
    hashes: str = ""
    """SQL of columns of hashes, in each of which rivals share one; empty where none are ranked."""
    rivals: str = ""
    """SQL that makes the table `_rivals_NAME` of image_ids, out of hashes that occur twice."""


def column_of(table: str, column: str, *, name: str = "", meaning: str = "") -> pa.Field:
    """A table's column as a view shows it."""
    field = TABLES[table].schema.field(column)
    if meaning:
        field = field.with_metadata({**(field.metadata or {}), b"description": meaning.encode()})
    return field.with_name(name or column)


def new_column(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    """A column that no table has."""
    return pa.field(name, kind, metadata={"description": meaning})
