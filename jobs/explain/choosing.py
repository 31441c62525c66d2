"""Which images are explained: by what a model said of them, or by a query."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.datasets import require_dataset
from jobs.rows import LATEST_SPLITS, require_split
from schemas.errors import BundleError, QueryError
from schemas.protocols import Store
from schemas.specs.explain import ExplainSpec

_LABELLED = f"""
WITH places AS ({LATEST_SPLITS}),
scored AS (
    SELECT image_id, scores FROM predictions WHERE model_id = $model_id
    QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY run_id DESC) = 1
),
labelled AS (
    SELECT images.image_id, images.uri, images.frame, images.etag, images.bytes,
        CASE WHEN list_contains($classes, images.label) THEN images.label END AS actual,
        scores IS NOT NULL AS scored,
        $classes[CASE
            WHEN $place IS NULL THEN list_position(scores, list_max(scores))
            WHEN scores[$place] >= $threshold THEN $place
            ELSE 3 - $place END] AS predicted,
        CASE
            WHEN $place IS NULL
                THEN list_reverse_sort(scores)[1] - coalesce(list_reverse_sort(scores)[2], 0)
            WHEN scores[$place] >= $threshold
                THEN coalesce((scores[$place] - $threshold) / nullif(1 - $threshold, 0), 1)
            ELSE ($threshold - scores[$place]) / $threshold END AS certainty
    FROM current_images AS images LEFT JOIN scored USING (image_id)
    WHERE images.dataset = $dataset AND ($split IS NULL OR images.image_id IN (
        SELECT image_id FROM places WHERE list_contains($parts, part)))
)
"""
"""Certainty is 0 on the border between two labels and 1 where it can't be higher: how far the
score lies from the operating point, or the likeliest class from the second."""

_COUNTS = f"""{_LABELLED}
SELECT count(*) AS images, count(*) FILTER (WHERE NOT scored) AS unscored,
    count(*) FILTER (WHERE actual IS NULL) AS unlabelled
FROM labelled
"""

_CHOSEN = f"""{_LABELLED}
SELECT image_id, uri, frame, etag, bytes, actual, {{target}} AS target
FROM labelled
WHERE scored AND {{target}} IS NOT NULL AND {{wanted}}
ORDER BY {{order}}, image_id LIMIT $limit
"""

_WANTED = {
    "wrong": ("actual IS NOT NULL AND predicted <> actual", "certainty DESC"),
    "certain": ("true", "certainty DESC"),
    "uncertain": ("true", "certainty"),
    "query": ("image_id IN (SELECT unnest($ids))", "image_id"),
}
"""By choice: which images, as SQL, and in which order."""


@dataclass(frozen=True)
class Chosen:
    """The images to explain, and those that could not be chosen from."""

    rows: pa.Table
    """Columns image_id, uri, frame, etag, bytes, actual and target, in the order of choice; each
    image once."""
    facts: Mapping[str, int]


def choose(spec: ExplainSpec, store: Store, bundle: Mapping[str, Any]) -> Chosen:
    """Choose the images of a data set, or of parts of its split, that a bundle has scored.

    Raises:
        BundleError: if the target is no class of the bundle.
        QueryError: if the query fails, or selects no column of image ids.
        SourceError: if the lake has no such data set.
        SplitError: if the parts of the split have no images.
    """
    require_dataset(spec.dataset, store)
    if spec.split is not None:
        require_split(store, spec.dataset, spec.split, spec.parts)
    parameters = _parameters(spec, bundle)
    (counts,) = store.query(_COUNTS, parameters).to_pylist()
    wanted, order = _WANTED[spec.choose]
    told: dict[str, int] = {"without a score": counts["unscored"]}
    if spec.choose == "wrong" or spec.target == "actual":
        told["without a label"] = counts["unlabelled"]
    asked = parameters | {"limit": spec.limit}
    target = {"predicted": "predicted", "actual": "actual"}.get(spec.target)
    if target is None:
        _require_class(spec.target, bundle)
        target, asked["target"] = "$target", spec.target
    chosen = _CHOSEN.format(target=target, wanted=wanted, order=order)
    if spec.query is None:
        return Chosen(store.query(chosen, asked), told)
    ids = _selected(spec.query, store)
    rows = store.query(chosen, asked | {"ids": ids.to_pylist(), "limit": None})
    places = pc.index_in(rows["image_id"], value_set=ids)
    ordered = rows.take(pc.sort_indices(places)).slice(0, spec.limit)
    return Chosen(ordered, told | {"selected by the query": len(ids)})


def operating_point(bundle: Mapping[str, Any]) -> dict[str, Any] | None:
    """The operating point of a bundle's row, where it decides: between two classes."""
    stated = json.loads(bundle["operating_point"] or "null")
    return stated if stated and len(bundle["classes"]) == 2 else None


def _parameters(spec: ExplainSpec, bundle: Mapping[str, Any]) -> dict[str, Any]:
    classes, point = list(bundle["classes"]), operating_point(bundle)
    return {
        "dataset": spec.dataset,
        "split": spec.split,
        "parts": list(spec.parts),
        "model_id": bundle["model_id"],
        "classes": classes,
        "place": classes.index(point["positive"]) + 1 if point else None,
        "threshold": float(point["threshold"]) if point else None,
    }


def _require_class(target: str, bundle: Mapping[str, Any]) -> None:
    if target not in bundle["classes"]:
        raise BundleError(
            "The model has no such class to explain",
            where=f"{bundle['name']}@{bundle['version']}",
            got=target,
            remedy=f"target: predicted, actual, or one of {', '.join(bundle['classes'])}",
        )


def _selected(sql: str, store: Store) -> pa.Array:
    """The image ids a query selects, each once, in its order."""
    found = store.query(sql)
    if "image_id" not in found.column_names:
        raise QueryError(
            "The query selects no column `image_id`",
            got=", ".join(found.column_names) or "no columns",
            remedy="write SELECT image_id, ... FROM ...",
        )
    place = found.column_names.index("image_id")
    kind = found.schema.field(place).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise QueryError(
            "The query's column `image_id` holds no image ids",
            got=str(kind),
            remedy="select the column image_id of a table or view",
        )
    return pc.unique(found.column(place).cast(pa.string())).drop_null()
