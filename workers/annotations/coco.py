"""COCO files: data sets of images with boxes, and lists of results."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Row = Mapping[str, Any]
INFO = ("image_id", "patient_id", "age", "sex", "label")
"""What the `info` of an image keeps of the catalogue."""


def coco_dataset(
    images: Iterable[Row], boxes: Iterable[Row], categories: Sequence[str], info: Mapping[str, Any]
) -> dict[str, Any]:
    """A COCO data set; ids of annotations and categories begin at 1, in the order given.

    ``images`` have ``number`` (their COCO id), ``file_name``, ``width``, ``height``, ``frame``
    (None where the file has one only) and the columns of `INFO`; ``boxes`` have the ``number`` of
    their image, ``category``, x, y, w, h, ``area`` and ``iscrowd``. ``info`` describes the whole.

    Raises:
        KeyError: if a box has a category that is not listed.
    """
    ids = {name: number for number, name in enumerate(categories, 1)}
    return {
        "info": dict(info),
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
        "images": [_image(row) for row in images],
        "annotations": [
            {
                "id": number,
                "image_id": row["number"],
                "category_id": ids[row["category"]],
                "bbox": _bbox(row),
                "area": shortest(row["area"]),
                "iscrowd": int(bool(row["iscrowd"])),
                "segmentation": [],
            }
            for number, row in enumerate(boxes, 1)
        ],
    }


def coco_results(boxes: Iterable[Row], categories: Sequence[str]) -> list[dict[str, Any]]:
    """A list of COCO results; ``boxes`` have a ``number``, ``category``, ``score``, x, y, w, h.

    Raises:
        KeyError: if a box has a category that is not listed.
    """
    ids = {name: number for number, name in enumerate(categories, 1)}
    return [
        {
            "image_id": row["number"],
            "category_id": ids[row["category"]],
            "bbox": _bbox(row),
            "score": shortest(row["score"]),
        }
        for row in boxes
    ]


def shortest(value: float | None) -> float | None:
    """A float32 as the shortest decimal that is read back as the same; None for NaN."""
    if value is None or not np.isfinite(value):
        return None
    return float(str(np.float32(value)))


def _image(row: Row) -> dict[str, Any]:
    made = {
        "id": row["number"],
        "file_name": row["file_name"],
        "width": row["width"],
        "height": row["height"],
        "info": {name: row[name] for name in INFO} | {"age": shortest(row["age"])},
    }
    return made if row["frame"] is None else made | {"frame": row["frame"]}


def _bbox(row: Row) -> list[float | None]:
    return [shortest(row[name]) for name in ("x", "y", "w", "h")]
