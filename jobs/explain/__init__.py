"""The kind `explain`: where in chosen images a classifier found what it says."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from jobs.annotated import require_sources
from jobs.batch import run_batch
from jobs.bundles import require_classifier
from jobs.explain.choosing import choose, operating_point
from jobs.explain.masks import find_masks
from schemas.plan import Counts, Plan, fingerprint, shard_bounds
from schemas.protocols import Pool, Report, Store
from schemas.reasons import TRANSIENT
from schemas.specs.explain import ExplainSpec
from schemas.tables import rows_of
from workers.explain.summary import FIGURES, KNOWN, summarise

_DRAWING = 2
"""Raised when the same settings give another heat map, figure or picture than before."""
_SHARD_IMAGES = 16
"""Images of a shard at most: few are chosen, and several processes should have a part of them."""

_KNOWN = f"""
SELECT image_id, target, settings, {", ".join(FIGURES)} FROM explanations
WHERE model_id = $model_id AND method = $method AND image_id IN (SELECT unnest($ids))
QUALIFY row_number() OVER (PARTITION BY image_id, target, settings ORDER BY run_id DESC) = 1
"""

_REJECTED = """
SELECT image_id, subject, etag FROM rejects
WHERE stage = 'explain' AND image_id IN (SELECT unnest($ids))
    AND NOT list_contains($transient, reason)
"""

_BOXES = """
SELECT image_id, x, y, w, h FROM current_annotations
WHERE source = $source AND NOT coalesce(iscrowd, false) AND image_id IN (SELECT unnest($ids))
ORDER BY image_id, x, y, w, h
"""

_INPUTS = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("frame", pa.int32()),
        ("etag", pa.string()),
        ("bytes", pa.int64()),
        ("actual", pa.string()),
        ("target", pa.string()),
        ("settings", pa.string()),
        ("overlay", pa.string()),
        ("masks", pa.list_(pa.struct([("uri", pa.string()), ("etag", pa.string())]))),
        ("boxes", pa.list_(pa.list_(pa.float32()))),
    ]
)
"""What a shard is told of an image: its file, its label by the archive if that is a class, whose
evidence is asked for, under which name its picture lies, and where its region is read."""

Row = dict[str, Any]


def plan(spec: ExplainSpec, store: Store) -> Plan:
    """Plan the chosen images that have not been explained with these settings.

    A reject stands until the image's bytes, its region or the settings change, or rejects are
    retried, and a transient one not at all.

    Raises:
        BundleError: if the lake has no such bundle, it is no classifier, or it has no such class.
        QueryError: if the query fails, or selects no image ids.
        SourceError: if no mask belongs to an image, or one may belong to several, or the source has
            annotated no image, or the lake has no such data set.
        SplitError: if the parts of the split have no images.
    """
    bundle = _classifier(spec, store)
    chosen = choose(spec, store, bundle)
    rows = _with_regions(spec, chosen.rows.to_pylist(), store)
    for row in rows:
        row["settings"] = _settings(spec, row)
        row["overlay"] = _overlay(row, bundle["classes"])
    new, known = _split_off_known(spec, rows, store, bundle)
    inputs = pa.Table.from_pylist(new, schema=_INPUTS)
    folder = _folder(spec, bundle)
    return Plan(
        kind=spec.kind,
        name=spec.name,
        key=key(bundle),
        identity=identity(spec, bundle),
        params=_params(spec, bundle, folder, store),
        inputs=inputs,
        bounds=shard_bounds(
            inputs["bytes"].to_pylist(),
            images=min(spec.execution.shard_images, _SHARD_IMAGES),
            max_bytes=spec.execution.shard_bytes,
        ),
        counts=Counts(up_to_date=len(rows) - len(new)),
        facts={
            "model": f"{bundle['name']}@{bundle['version']}",
            **chosen.facts,
            "overlays": f"{store.root}/{folder}",
            **(summarise(known) if not new else {}),
        },
        staged={KNOWN: known},
    )


def run(spec: ExplainSpec, pool: Pool, store: Store) -> Report:
    """Explain what is new, going on where an earlier driver stopped."""
    bundle = _classifier(spec, store)
    return run_batch(
        spec,
        lambda: plan(spec, store),
        pool,
        store,
        key=key(bundle),
        identity=identity(spec, bundle),
    )


def key(bundle: Mapping[str, Any]) -> tuple[str, ...]:
    """A run alone may write the explanations of a model, whichever data set they are of."""
    return ("explain", str(bundle["model_id"]))


def identity(spec: ExplainSpec, bundle: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a run depends on beside the images: the model and its operating point, and the spec."""
    return spec.identity() | {
        "model": bundle["model_id"],
        "operating_point": operating_point(bundle),
        "drawing": _DRAWING,
    }


def _classifier(spec: ExplainSpec, store: Store) -> Mapping[str, Any]:
    bundle = store.bundle(spec.model)
    require_classifier(bundle, "name a classifier; a detector's boxes show what it found")
    return bundle


def _with_regions(spec: ExplainSpec, rows: list[Row], store: Store) -> list[Row]:
    """Add to each row the masks and boxes of its image; none where no region is asked for."""
    masks: Mapping[str, list[dict[str, str]]] = {}
    boxes: dict[str, list[list[float]]] = {}
    if spec.regions is not None and rows:
        masks = find_masks(spec.regions, spec.dataset, store)
    if spec.annotations is not None and rows:
        require_sources(spec.dataset, [spec.annotations], store)
        asked = {"source": spec.annotations, "ids": [row["image_id"] for row in rows]}
        for box in store.query(_BOXES, asked).to_pylist():
            boxes.setdefault(box.pop("image_id"), []).append(list(box.values()))
    return [
        row | {"masks": masks.get(row["image_id"], []), "boxes": boxes.get(row["image_id"], [])}
        for row in rows
    ]


def _settings(spec: ExplainSpec, row: Row) -> str:
    """What a heat map, its figures and its picture depend on beside image, model and target."""
    return fingerprint(
        {
            "drawing": _DRAWING,
            "method": spec.method,
            "layer": spec.layer,
            "opacity": spec.opacity,
            "masks": sorted(one["etag"] for one in row["masks"]),
            "boxes": row["boxes"],
        }
    )


def _split_off_known(
    spec: ExplainSpec, rows: list[Row], store: Store, bundle: Mapping[str, Any]
) -> tuple[list[Row], pa.Table]:
    """Tell images to work on from those explained or rejected before, whose figures come too."""
    asked = {"ids": [row["image_id"] for row in rows]}
    found = store.query(
        _KNOWN, asked | {"model_id": bundle["model_id"], "method": spec.method}
    ).to_pylist()
    known = {(one["image_id"], one["target"], one["settings"]): one for one in found}
    rejected = set[tuple[str, str, str]]()
    if not spec.retry_rejects:
        rejects = store.query(_REJECTED, asked | {"transient": sorted(TRANSIENT)}).to_pylist()
        rejected = {(one["image_id"], one["subject"], one["etag"]) for one in rejects}
    new, figures = [], []
    for row in rows:
        made = known.get((row["image_id"], row["target"], row["settings"]))
        subject = f"{bundle['model_id']}-{row['settings']}"
        if made is not None:
            figures.append({name: made[name] for name in FIGURES})
        elif (row["image_id"], subject, row["etag"]) not in rejected:
            new.append(row)
    return new, rows_of("explanations", figures).select(FIGURES)


def _folder(spec: ExplainSpec, bundle: Mapping[str, Any]) -> str:
    """Where overlays lie below the lake: one folder a model, method and layer."""
    method = spec.method if spec.layer is None else f"{spec.method}-{_safe(spec.layer)}"
    return f"reports/explain/{bundle['name']}/{bundle['version']}/{method}"


def _overlay(row: Row, classes: Sequence[str]) -> str:
    """The name of an image's picture; a class that is no file name is named with its place."""
    target = row["target"]
    shown = target if _safe(target) == target else f"{_safe(target)}-{classes.index(target)}"
    return f"{row['image_id']}-{shown}.jpg"


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)


def _params(
    spec: ExplainSpec, bundle: Mapping[str, Any], folder: str, store: Store
) -> dict[str, Any]:
    return {
        "bundle": bundle["uri"],
        "model_id": bundle["model_id"],
        "method": spec.method,
        "layer": spec.layer,
        "opacity": spec.opacity,
        "region_source": spec.regions or spec.annotations,
        "folder": folder,
        "target": f"{store.root}/{folder}",
        "device": "cuda" if spec.execution.gpus_per_worker else "cpu",
    }
