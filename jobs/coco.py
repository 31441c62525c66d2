"""Annotations and detections of the lake as COCO, for tools that read it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.annotated import choose_source
from jobs.numbered import NUMBERED, folder_of, with_file_names
from jobs.rows import LATEST_SPLITS, require_split
from schemas.errors import SourceError, UsageError
from schemas.protocols import Store
from workers.annotations.coco import coco_dataset, coco_results

_IMAGES = f"""
SELECT images.* FROM ({NUMBERED}) AS images LEFT JOIN ({LATEST_SPLITS}) AS places USING (image_id)
WHERE $split IS NULL OR list_contains($parts, places.part) ORDER BY number
"""
_OF_DATASET = "image_id IN (SELECT image_id FROM current_images WHERE dataset = $dataset)"
_ANNOTATED = "SELECT image_id FROM annotated_images WHERE source = $source"
_CATEGORIES = f"""
SELECT DISTINCT category FROM current_annotations
WHERE source = $source AND {_OF_DATASET} ORDER BY category
"""
_BOXES = f"""
SELECT * FROM current_annotations WHERE source = $source AND {_OF_DATASET}
ORDER BY image_id, y, x, h, w, category
"""
_SCORED = f"""
SELECT image_id, max(run_id) AS run_id FROM predictions
WHERE model_id = $model_id AND {_OF_DATASET} GROUP BY image_id
"""
_DETECTIONS = f"""
SELECT detections.* FROM detections JOIN ({_SCORED}) USING (image_id, run_id)
WHERE model_id = $model_id ORDER BY image_id, score DESC, y, x, h, w, category
"""

Row = dict[str, Any]


@dataclass(frozen=True)
class Selection:
    """Which images are exported."""

    dataset: str
    split: str | None = None
    parts: tuple[str, ...] = ("train", "val", "test")
    """Parts of the split."""


def export_annotations(
    store: Store, selection: Selection, source: str | None, categories: Sequence[str] = ()
) -> dict[str, Any]:
    """A COCO data set of the images that a source has annotated, those without a box included.

    ``source`` is the only one of the data set when not given. Categories come in the order stated,
    alphabetically otherwise; the ids of images number the data set's images by uri.

    Raises:
        UsageError: if there is no such source, or several to choose from, or no such data set; or
            if ``categories`` lack one that a box has.
        SplitError: if the split has no such parts.
    """
    images = _images(store, selection)
    source = _source(store, selection.dataset, source)
    asked = {"source": source, "dataset": selection.dataset}
    annotated = set(store.query(_ANNOTATED, {"source": source})["image_id"].to_pylist())
    shown = [row for row in images if row["image_id"] in annotated]
    found = store.query(_CATEGORIES, asked)["category"].to_pylist()
    info = {
        "description": f"annotations of {selection.dataset} by {source}",
        "dataset": selection.dataset,
        "source": source,
        "split": selection.split,
        "parts": list(selection.parts) if selection.split else None,
    }
    boxes = _numbered(store.query(_BOXES, asked).to_pylist(), shown)
    return coco_dataset(shown, boxes, _order(categories, found), info)


def export_detections(
    store: Store, selection: Selection, model: str, categories: Sequence[str] = ()
) -> tuple[list[dict[str, Any]], int]:
    """A COCO list of a model's detections, and how many of the images it has not scored.

    The ids of images and the order of categories are those of `export_annotations`, as long as
    both have the same categories or both state them.

    Raises:
        BundleError: if there is no such bundle.
        UsageError: if there is no such data set, or ``categories`` lack one of the bundle's.
        SplitError: if the split has no such parts.
    """
    bundle = store.bundle(model)
    images = _images(store, selection)
    asked = {"model_id": bundle["model_id"], "dataset": selection.dataset}
    scored = set(store.query(_SCORED, asked)["image_id"].to_pylist())
    boxes = _numbered(store.query(_DETECTIONS, asked).to_pylist(), images)
    order = _order(categories, sorted(bundle["classes"]))
    return coco_results(boxes, order), sum(row["image_id"] not in scored for row in images)


def _images(store: Store, selection: Selection) -> list[Row]:
    """The images with their numbers and file names."""
    dataset, split = selection.dataset, selection.split
    folder = folder_of(dataset, store)
    if folder is None:
        raise UsageError(
            "The lake has no images of this data set",
            got=dataset,
            remedy="see `rayward query 'SELECT DISTINCT dataset FROM current_images'`",
        )
    if split is not None:
        require_split(store, dataset, split, selection.parts)
    asked = {"dataset": dataset, "split": split, "parts": list(selection.parts)}
    rows: list[Row] = with_file_names(store.query(_IMAGES, asked), folder).to_pylist()
    return rows


def _source(store: Store, dataset: str, asked: str | None) -> str:
    try:
        source = choose_source(dataset, asked, store)
    except SourceError as error:  # the name comes from a command line
        raise UsageError(
            error.what, where=error.where, got=error.got, remedy=error.remedy
        ) from None
    if source is None:
        raise UsageError(
            "Nobody has annotated the data set",
            where=dataset,
            remedy="annotate it first: a job of `kind: annotate`",
        )
    return source


def _order(stated: Sequence[str], found: Sequence[str]) -> list[str]:
    """The categories as stated, or as found; what is stated must be all of them.

    Raises:
        UsageError: if one is missing, or stated twice.
    """
    if not stated:
        return list(found)
    missing = [name for name in found if name not in stated]
    twice = [name for name, count in Counter(stated).items() if count > 1]
    if missing or twice:
        raise UsageError(
            "The categories do not cover what there is" if missing else "A category is named twice",
            where="--category",
            got=", ".join(stated),
            remedy=f"name each once; there are: {', '.join(found)}",
        )
    return list(stated)


def _numbered(boxes: list[Row], images: list[Row]) -> list[Row]:
    """The boxes of these images with the images' numbers, in the order of the images."""
    numbers = {row["image_id"]: row["number"] for row in images}
    found = [
        row | {"number": numbers[row["image_id"]]} for row in boxes if row["image_id"] in numbers
    ]
    return sorted(found, key=lambda row: int(row["number"]))
