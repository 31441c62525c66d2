"""The images of a review: what is marked in each, and what models found that may judge it."""

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.annotated import MARKED, annotation_of, is_taken, left_out, require_sources
from jobs.bundles import detection_settings
from jobs.learned import met_images
from jobs.numbered import NUMBERED, folder_of, with_file_names
from jobs.rows import LATEST_SPLITS, require_split
from schemas.naming import reference
from schemas.protocols import Store
from schemas.specs.review import ReviewSpec

_PARTS = ("train", "val", "test")

_IMAGES = f"""
WITH numbered AS ({NUMBERED}), marked AS ({MARKED})
SELECT numbered.*, marked.marks, {annotation_of("numbered.image_id")} AS annotation
FROM numbered JOIN ({LATEST_SPLITS}) AS places ON places.image_id = numbered.image_id
LEFT JOIN marked ON marked.image_id = numbered.image_id
WHERE list_contains($parts, places.part) ORDER BY number
"""

_SCORED = """
SELECT image_id, max(run_id) AS run_id FROM predictions
WHERE model_id = $model_id AND image_id IN (SELECT unnest(CAST($ids AS VARCHAR[])))
GROUP BY image_id
"""
_FOUND = f"""
WITH scored AS ({_SCORED})
SELECT scored.image_id, list({{
    'model_id': $model_id, 'category': category, 'score': score, 'x': x, 'y': y, 'w': w, 'h': h
}} ORDER BY score DESC, x, y, w, h, category)
    FILTER (WHERE score >= CAST($least AS FLOAT)) AS found
FROM scored LEFT JOIN (SELECT * FROM detections WHERE model_id = $model_id) AS seen
    ON seen.image_id = scored.image_id AND seen.run_id = scored.run_id
GROUP BY scored.image_id
"""


@dataclass(frozen=True)
class Reviewed:
    """The images that a model may judge."""

    rows: pa.Table
    """Columns ``image_id, number, file_name, frame, width, height, patient_id, age, sex, label``;
    ``marks`` (category, x, y, w, h, area, ignored) and ``found`` (model_id, category, score, x, y,
    w, h), px of the original."""
    bundles: Sequence[Mapping[str, Any]]
    classes: list[str]
    """Categories of the models."""
    facts: Mapping[str, Any]


def find_images(spec: ReviewSpec, store: Store) -> Reviewed:
    """Read what is marked in the images, and what models found that have not met them.

    Raises:
        BundleError: if the lake has no such bundle, or it is no detector.
        SourceError: if no such source has annotated the data set.
        SplitError: if the split has no images.
    """
    require_split(store, spec.dataset, spec.split, _PARTS)
    sources = [one for one in (spec.annotations, spec.ignored) if one is not None]
    require_sources(spec.dataset, sources, store)
    every = _images(spec, sources, store)
    images = every.filter(is_taken(every["annotation"], spec.images))
    ids = set(images["image_id"].to_pylist())
    bundles = [store.bundle(name) for name in spec.models]
    found: dict[str, list[dict[str, Any]]] = {}
    judgeable: set[str] = set()
    facts: dict[str, Any] = {}
    for bundle in bundles:
        unmet = ids - _met_by(spec, store, bundle)
        of_image = _found_by(spec, store, bundle, unmet)
        facts[f"judged by {reference(bundle)}"] = len(of_image)
        judgeable |= unmet
        for image_id, boxes in of_image.items():
            found.setdefault(image_id, []).extend(boxes)
    facts |= {
        "no model may judge": len(ids - judgeable),
        "without a score": len(judgeable - set(found)),
        **left_out(every["annotation"], spec.images),
    }
    rows = images.filter(pc.is_in(images["image_id"], value_set=pa.array(list(found), pa.string())))
    classes = dict.fromkeys(name for bundle in bundles for name in bundle["classes"])
    return Reviewed(_with_found(rows, found), bundles, list(classes), facts)


def _images(spec: ReviewSpec, sources: Sequence[str], store: Store) -> pa.Table:
    """The images of the split with their numbers, file names and marks."""
    asked = {
        "dataset": spec.dataset,
        "split": spec.split,
        "parts": list(_PARTS),
        "source": spec.annotations,
        "sources": list(sources),
    }
    return with_file_names(store.query(_IMAGES, asked), folder_of(spec.dataset, store) or "")


def _met_by(spec: ReviewSpec, store: Store, bundle: Mapping[str, Any]) -> set[str]:
    """The images that a model may not judge."""
    data = json.loads(bundle["data"] or "{}")
    met = met_images(store, data, dataset=spec.dataset, split=spec.split)
    return set(met["image_id"].to_pylist())


def _found_by(
    spec: ReviewSpec, store: Store, bundle: Mapping[str, Any], unmet: Set[str]
) -> dict[str, list[dict[str, Any]]]:
    """The confident detections of every one of these images that a model has scored."""
    settings = detection_settings(bundle, store)
    asked = {
        "model_id": bundle["model_id"],
        "ids": sorted(unmet),
        "least": settings.score_threshold if spec.min_score is None else spec.min_score,
    }
    rows = store.query(_FOUND, asked).to_pylist()
    return {row["image_id"]: row["found"] or [] for row in rows}


_BOX = pa.struct(
    [
        ("model_id", pa.string()),
        ("category", pa.string()),
        ("score", pa.float32()),
        *((edge, pa.float32()) for edge in ("x", "y", "w", "h")),
    ]
)


def _with_found(rows: pa.Table, found: Mapping[str, list[dict[str, Any]]]) -> pa.Table:
    boxes = [found[image_id] for image_id in rows["image_id"].to_pylist()]
    return rows.drop_columns(["annotation"]).append_column("found", pa.array(boxes, pa.list_(_BOX)))
