"""Rows as a split's plan hands them out, and the split of them."""

from typing import Any

import pyarrow as pa

from workers import splitting

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("patient_ids", pa.list_(pa.string())),
        ("label", pa.string()),
        ("splits", pa.list_(pa.string())),
        ("copies", pa.int64()),
        ("phash", pa.string()),
        ("kept", pa.bool_()),
        ("part", pa.string()),
        ("fold", pa.int32()),
        ("group_id", pa.string()),
    ]
)
PARAMS: dict[str, Any] = {
    "dataset": "d",
    "split_name": "s",
    "mode": "make",
    "shares": {"train": 0.7, "val": 0.1, "test": 0.2},
    "folds": 0,
    "distance": 2,
    "max_group_share": 0.01,
    "seed": 0,
    "keep_parts": True,
    "keep_folds": True,
}


def row(number: int, **changes: Any) -> dict[str, Any]:
    # Hashes far apart: multiples of a large odd number.
    phash = (number * 0x9E3779B97F4A7C15) % 2**64
    base = {
        "image_id": f"{number:06d}",
        "patient_ids": [],
        "label": "ill" if number % 3 == 0 else "well",
        "splits": [],
        "copies": 1,
        "phash": f"{phash:016x}",
        "kept": True,
    }
    return base | changes


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def corpus(count: int, per_patient: int = 4) -> list[dict[str, Any]]:
    return [row(n, patient_ids=[f"p{n // per_patient}"]) for n in range(count)]


def split(rows: list[dict[str, Any]], **changes: Any) -> tuple[dict[str, dict[str, Any]], Any]:
    result = splitting.load(PARAMS | changes)(table(rows), [])
    assert result.done == len(rows)
    return {one["image_id"]: one for one in result.tables["splits"].to_pylist()}, result


def with_places(
    rows: list[dict[str, Any]], places: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """The rows as the next plan would hand them out."""
    fields = ("part", "fold", "group_id")
    return [
        one | {name: places[one["image_id"]][name] for name in fields}
        if one["image_id"] in places
        else one
        for one in rows
    ]
