"""What tables are made of: their schema, and the columns that many of them have."""

from dataclasses import dataclass

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class TableSchema:
    """One table of the lake."""

    name: str
    row: str
    """What one row is."""
    schema: pa.Schema
    partition_by: tuple[str, ...] = ()
    sort_by: tuple[str, ...] = ("image_id",)
    rows_per_group: int = 122_880
    """Rows of a Parquet row group: what a reader of a few rows has to read at least."""
    rows_per_file: int | None = None
    """Rows of a compacted file, about, where readers want a few hundred; otherwise size decides."""
    compression: str = "zstd"
    """Codec of the Parquet files."""


def column(name: str, kind: pa.DataType, meaning: str, unit: str = "") -> pa.Field:
    """A column with its meaning, and the unit of what it holds."""
    metadata = {"description": meaning} | ({"unit": unit} if unit else {})
    return pa.field(name, kind, metadata=metadata)


def image_id() -> pa.Field:
    """The column of an image."""
    return column(
        "image_id", pa.string(), "128-bit content hash of the source bytes in hex, plus '.frame'"
    )


def model_id() -> pa.Field:
    """The column of a model."""
    return column(
        "model_id", pa.string(), "hash of weights, classes, preprocessing and calibration"
    )


def _run_id() -> pa.Field:
    return column("run_id", pa.string(), "the run that wrote the row; begins with its UTC time")


def recipe() -> pa.Field:
    """The column of a recipe."""
    return column("recipe", pa.string(), "hash of the recipe")


def box(of: str) -> tuple[pa.Field, ...]:
    """The columns of a box in the original image; ``of`` says what it bounds."""
    return (
        column("x", pa.float32(), f"left edge of the {of} in the original image", "px"),
        column("y", pa.float32(), f"top edge of the {of} in the original image", "px"),
        column("w", pa.float32(), f"width of the {of}", "px"),
        column("h", pa.float32(), f"height of the {of}", "px"),
    )


def table(
    name: str,
    row: str,
    columns: tuple[pa.Field, ...],
    *,
    partition_by: tuple[str, ...] = (),
    sort_by: tuple[str, ...] = ("image_id",),
) -> TableSchema:
    """A table of columns, and of the run that wrote each row."""
    return TableSchema(name, row, pa.schema([*columns, _run_id()]), partition_by, sort_by)
