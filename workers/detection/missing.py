"""Boxes that annotations are likely to lack, as a ranked list and as COCO files."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.plan import Blob, ShardFunction, ShardResult
from schemas.tables import rows_of
from workers.annotations.coco import coco_dataset
from workers.detection.boxes import Boxes, Detections, Floats, corners_of, has_area, overlap
from workers.detection.matching import held

Row = dict[str, Any]

_EDGES = ("x", "y", "w", "h")
_SHOWN = ("rank", "file_name", "frame", "category", "score", "votes", *_EDGES, "overlap")


def load(params: Mapping[str, Any]) -> ShardFunction:
    """Make the function that lists the likely missing boxes of all images at once.

    ``params``: ``columns``, those of `candidates` equal in all rows; ``classes``, ``iou`` and
    ``limit``. Rows have the columns ``image_id``, ``number`` (the COCO id), ``file_name``,
    ``frame``, ``width``, ``height``, ``patient_id``, ``age``, ``sex``, ``label``, ``marks`` and
    ``found``. Files: ``review.json`` (marked boxes and candidates, to be looked at),
    ``ignored.json`` (candidates as crowds, to be annotated as regions to ignore) and
    ``candidates.csv``.
    """

    def review(rows: pa.Table, _blobs: Sequence[Blob]) -> ShardResult:
        images = rows.to_pylist()
        listed = [one for image in images for one in missing_boxes(image, params["iou"])]
        listed.sort(key=lambda one: (-one["score"], one["image_id"], one["x"], one["y"]))
        chosen = listed[: params["limit"]]
        for rank, one in enumerate(chosen, 1):
            one["rank"] = rank
        found = [params["columns"] | _known(one) for one in chosen]
        return ShardResult(
            {"candidates": rows_of("candidates", found)},
            done=rows.num_rows,
            rejected=0,
            files=_files(images, chosen, params),
            facts={"likely missing": len(listed), "listed": len(chosen)},
        )

    return review


def missing_boxes(image: Mapping[str, Any], min_overlap: float) -> list[Row]:
    """The detections of an image that overlap no marked box enough, one for each lesion.

    Of detections that overlap one another, by whichever models and as whatever, the most confident
    stands for all; ``votes`` counts their models. Ignored regions hold what lies in them.
    """
    found = sorted(image["found"] or [], key=lambda one: -one["score"])
    if not found:
        return []
    corners_D4 = _clipped(found, image)
    marks = image["marks"] or []
    marked_M4 = corners_of(marks)
    regions = Boxes(
        marked_M4, np.zeros(len(marks), np.int64), np.asarray([m["ignored"] for m in marks], bool)
    )
    detections = Detections(
        corners_D4,
        np.asarray([one["score"] for one in found], np.float32),
        np.zeros(len(found), np.int64),
    )
    most_D = overlap(corners_D4, marked_M4).max(axis=1, initial=0.0)
    hidden_D = held(detections, regions.take(regions.ignored_B), min_overlap)
    left = np.flatnonzero((most_D < min_overlap) & ~hidden_D & has_area(corners_D4))
    ratio_DD = overlap(corners_D4, corners_D4)
    kept: list[Row] = []
    while len(left):
        first, same = left[0], ratio_DD[left[0], left] >= min_overlap
        models = {found[place]["model_id"] for place in left[same]}
        x, y, right, bottom = (float(edge) for edge in corners_D4[first])
        edges = {"x": x, "y": y, "w": right - x, "h": bottom - y}
        told = {"votes": len(models), "overlap": float(most_D[first])}
        kept.append({**image, **found[first], **edges, **told})
        left = left[~same]
    return kept


def _known(one: Row) -> Row:
    names = ("rank", "image_id", "model_id", "votes", "category", "score", *_EDGES, "overlap")
    return {name: one[name] for name in names}


def _files(
    images: Sequence[Row], chosen: Sequence[Row], params: Mapping[str, Any]
) -> dict[str, bytes]:
    wanted = {one["image_id"] for one in chosen}
    shown = [image for image in images if image["image_id"] in wanted]
    named = {str(mark["category"]) for image in shown for mark in image["marks"] or []}
    categories = list(dict.fromkeys([*params["classes"], *sorted(named)]))
    marks = [
        {**mark, "number": image["number"], "iscrowd": mark["ignored"]}
        | {"category": str(mark["category"])}
        for image in shown
        for mark in image["marks"] or []
    ]
    listed = [{**one, "area": one["w"] * one["h"], "iscrowd": False} for one in chosen]
    info = {"description": "boxes that annotations are likely to lack", **params["columns"]}
    review = coco_dataset(shown, [*marks, *listed], categories, info)
    for annotation, one in zip(review["annotations"][len(marks) :], chosen, strict=True):
        # Where CVAT and its kin keep what is no part of COCO.
        score = round(float(one["score"]), 4)
        annotation["attributes"] = {"likely_missing": True, "rank": one["rank"], "score": score}
    crowds = [{**one, "iscrowd": True} for one in listed]
    return {
        "review.json": _json(review),
        "ignored.json": _json(coco_dataset(shown, crowds, categories, info)),
        "candidates.csv": _csv(chosen),
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _csv(chosen: Sequence[Row]) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_SHOWN)
    for one in chosen:
        values = [one[name] for name in _SHOWN]
        writer.writerow([f"{x:.4g}" if isinstance(x, float) else x for x in values])
    return stream.getvalue().encode()


def _clipped(boxes: Sequence[Mapping[str, Any]], image: Mapping[str, Any]) -> Floats:
    """Corners within the image: annotations beyond it would be rejected."""
    corners_B4 = corners_of(boxes)
    most = np.asarray([image["width"], image["height"]] * 2, np.float32)
    clipped: Floats = np.clip(corners_B4, 0, most)
    return clipped
