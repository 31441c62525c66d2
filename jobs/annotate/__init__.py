"""The kind `annotate`: boxes of a data set's images from masks, tables, COCO files or headers."""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from jobs.annotate.entries import Entry
from jobs.annotate.gathering import Wanted, gather
from jobs.annotate.sources import coco_entries, csv_entries, mask_entries
from jobs.batch import run_batch
from jobs.datasets import require_dataset
from schemas.plan import Counts, Plan, fingerprint, shard_bounds
from schemas.protocols import Pool, Report, Store
from schemas.reasons import TRANSIENT
from schemas.specs.annotate import AnnotateSpec
from workers.annotations.naming import NamedImages, distinct

_READING = 2
"""Raised when the same source and settings give other rows than before."""
_ROW_BYTES = 512
"""What a row takes that reads no file, about."""

_IMAGES = """
SELECT image_id, uri, uris, frame, etag, bytes, label, height, width
FROM current_images WHERE dataset = $dataset ORDER BY uri, frame, image_id
"""
_KNOWN = "SELECT image_id, made_from FROM annotated_images WHERE source = $source"
_REJECTED = """
SELECT coalesce(image_id, uri) AS what, etag FROM rejects
WHERE stage = 'annotate' AND subject = $source AND NOT list_contains($transient, reason)
"""

BOX = pa.struct(
    [
        ("name", pa.string()),
        ("category", pa.string()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("w", pa.float64()),
        ("h", pa.float64()),
        ("area", pa.float64()),
        ("iscrowd", pa.bool_()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
"""A box as its source has it; with a ``reason``, what is wrong with it."""

_INPUTS = pa.schema(
    [
        ("action", pa.string()),
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("frame", pa.int32()),
        ("etag", pa.string()),
        ("bytes", pa.int64()),
        ("read", pa.bool_()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("category", pa.string()),
        ("made_from", pa.string()),
        ("known", pa.bool_()),
        (
            "masks",
            pa.list_(
                pa.struct([("uri", pa.string()), ("etag", pa.string()), ("category", pa.string())])
            ),
        ),
        ("boxes", pa.list_(BOX)),
    ]
)
"""What a shard is told of an image: ``action`` is annotate or withdraw; ``read`` says whether its
own file is needed; ``category`` is that of boxes that name none; ``known`` whether an earlier run
annotated it. A row without an image_id is an entry of the source that names no image."""

Row = dict[str, Any]


def plan(spec: AnnotateSpec, store: Store) -> Plan:
    """Plan the images whose annotation is new, changed or withdrawn.

    A reject stands until what the source says of the image changes, or rejects are retried, or
    the image is annotated, and a transient one not at all.

    Raises:
        SourceError: if the source can't be read, or is not what the spec says it is, or the lake
            has no such data set.
        KeyFileError: if names of the data set hold identifiers and the key is missing.
    """
    require_dataset(spec.dataset, store)
    images = NamedImages(store.query(_IMAGES, {"dataset": spec.dataset}).to_pylist())
    found = gather(spec, images, _entries(spec, store))
    known = {
        row["image_id"]: row["made_from"]
        for row in store.query(_KNOWN, {"source": spec.source}).to_pylist()
    }
    settled = _Settled(spec, store, known)
    rows = [row for one in found.wanted if (row := settled.open(spec, one)) is not None]
    named = {one.image["image_id"] for one in found.wanted if one.image is not None}
    unnamed = [one for one in distinct(images.rows) if one["image_id"] not in named]
    withdrawn = [_withdrawn(one) for one in unnamed if one["image_id"] in known]
    inputs = pa.Table.from_pylist([*rows, *withdrawn], schema=_INPUTS)
    noticed = {
        "images the source does not name": len(unnamed),
        "masks that are catalogued as images": found.catalogued,
    }
    return Plan(
        kind=spec.kind,
        name=spec.name,
        key=key(spec),
        identity=identity(spec),
        params=_params(spec),
        inputs=inputs,
        bounds=shard_bounds(
            [max(size, _ROW_BYTES) for size in inputs["bytes"].to_pylist()],
            images=spec.execution.shard_images,
            max_bytes=spec.execution.shard_bytes,
        ),
        counts=Counts(up_to_date=len(found.wanted) - len(rows)),
        facts={"source": spec.source} | {name: count for name, count in noticed.items() if count},
    )


def run(spec: AnnotateSpec, pool: Pool, store: Store) -> Report:
    """Annotate what is new, going on where an earlier driver stopped."""
    return run_batch(
        spec, lambda: plan(spec, store), pool, store, key=key(spec), identity=identity(spec)
    )


def key(spec: AnnotateSpec) -> tuple[str, ...]:
    """A run alone may write what a source says of a data set."""
    return (spec.kind, spec.dataset, spec.source)


def identity(spec: AnnotateSpec) -> Mapping[str, Any]:
    """What a run depends on beside what the source says, which stands in each image's hash."""
    return spec.identity() | {"reading": _READING}


def _entries(spec: AnnotateSpec, store: Store) -> Iterable[Entry]:
    """What the source says; nothing for headers, which the shards read."""
    if spec.masks is not None:
        return mask_entries(spec.masks, store)
    if spec.csv is not None:
        return csv_entries(spec.csv, store.read_source(spec.csv.file))
    if spec.coco is not None:
        return coco_entries(spec.coco, store.read_source(spec.coco.file))
    return ()


class _Settled:
    """Which images need no work."""

    def __init__(self, spec: AnnotateSpec, store: Store, known: Mapping[str, str | None]) -> None:
        self._known = known
        self._rejected = set[tuple[str, str]]()
        self._settings = fingerprint(_settings(spec))
        if not spec.retry_rejects:
            asked = {"source": spec.source, "transient": sorted(TRANSIENT)}
            rows = store.query(_REJECTED, asked).to_pylist()
            self._rejected = {(row["what"], row["etag"]) for row in rows}

    def open(self, spec: AnnotateSpec, one: Wanted) -> Row | None:
        """The row of an image, unless it is annotated, or rejected, just so."""
        image = one.image or {}
        made_from = fingerprint([self._settings, one.stated()])
        image_id = image.get("image_id")
        if image_id is not None and self._known.get(image_id) == made_from:
            return None
        # An image that was annotated since has boxes of then, which are to be withdrawn.
        known = image_id in self._known
        if not known and (image_id or one.place, made_from) in self._rejected:
            return None
        return {
            "action": "annotate",
            "image_id": image_id,
            "uri": one.place,
            "frame": image.get("frame"),
            "etag": image.get("etag"),
            "bytes": image.get("bytes") if spec.dicom else sum(mask["bytes"] for mask in one.masks),
            "read": spec.dicom is not None and image_id is not None,
            "height": image.get("height"),
            "width": image.get("width"),
            "category": one.category,
            "made_from": made_from,
            "known": known,
            "masks": [{name: mask[name] for name in _MASK} for mask in one.masks],
            "boxes": one.boxes,
        }


_MASK = ("uri", "etag", "category")


def _withdrawn(image: Row) -> Row:
    shown = {name: image[name] for name in ("image_id", "uri", "frame", "etag")}
    return shown | {"action": "withdraw", "bytes": 0, "read": False, "known": True}


def _settings(spec: AnnotateSpec) -> dict[str, Any]:
    """What the rows of an image depend on beside what the source says of it."""
    params = _params(spec)
    del params["source"]
    return params | {"reading": _READING}


def _params(spec: AnnotateSpec) -> dict[str, Any]:
    methods = ("masks", "csv", "coco", "dicom")
    method = next(name for name in methods if getattr(spec, name) is not None)
    return {
        "source": spec.source,
        "method": method,
        "components": spec.masks is not None and spec.masks.each == "component",
        "min_pixels": spec.masks.min_pixels if spec.masks is not None else 1,
        "categories": dict(sorted(spec.categories.items())),
        "allowed": sorted(spec.allowed),
    }
