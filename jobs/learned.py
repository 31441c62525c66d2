"""Which images a model learned from, shared by the kinds that must not ask it about them."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from jobs.rows import ROLE
from schemas.protocols import Store

_LEARNED = f"""
WITH places AS (
    SELECT image_id, {ROLE} AS role FROM splits
    WHERE split_name = $split AND dataset = $dataset AND ($run IS NULL OR run_id <= $run)
    QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY run_id DESC) = 1
)
SELECT image_id, role FROM places
WHERE role IN ('train', 'val') AND image_id NOT IN (
    SELECT image_id FROM current_images
    WHERE dataset = $dataset AND len($sites) > 0
        AND NOT coalesce(list_contains($sites, site), false))
"""
# An image that is gone can't be told to be of another site, so it counts as learned.

_STARTED_FROM = "SELECT data FROM models WHERE name = $name AND version = $version LIMIT 1"

_SCHEMA = pa.schema([("image_id", pa.string()), ("role", pa.string())])


def learned_images(store: Store, data: Mapping[str, Any]) -> pa.Table:
    """The images a model was trained (role train) or chosen (role val) on.

    ``data`` is what its bundle says of them. The images of the bundle that its weights started from
    count too, and of the one before that. An image may come several times. Places are those that
    the splits gave when it was trained.
    """
    found = [
        store.query(
            _LEARNED,
            {
                "dataset": one["dataset"],
                "split": one["split"],
                "run": one.get("split_run"),
                "fold": one.get("fold"),
                "inner_fold": one.get("inner_fold"),
                "sites": list(one.get("sites") or ()),
            },
        )
        for one in _trainings(store, data)
        if "split" in one
    ]
    return pa.concat_tables([_SCHEMA.empty_table(), *found])


def _trainings(store: Store, data: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The data of a bundle, then of those it started from; a start is older than what it starts."""
    yield data
    reference = (data.get("start") or {}).get("bundle")
    if reference is None:
        return
    name, _, version = str(reference).partition("@")
    rows = store.query(_STARTED_FROM, {"name": name, "version": int(version)})
    for told in rows["data"].to_pylist():
        yield from _trainings(store, json.loads(told or "{}"))
