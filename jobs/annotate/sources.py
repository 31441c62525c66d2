"""Reading what a source says: the names of masks, the rows of a CSV file, a COCO file."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, TypeGuard

from jobs.annotate.entries import (
    A_MASK,
    Entry,
    box,
    fault,
    frame_number,
    number,
    wrong_frame,
)
from schemas.errors import SourceError
from schemas.protocols import Store
from schemas.reasons import RejectReason
from schemas.specs.annotate import CSV_FIELDS, CocoBoxes, CsvBoxes, Masks

_XYWH = ("x", "y", "w", "h")
_CORNERS = ("left", "top", "right", "bottom")
_NO_ID = "without a number"
_TRUE = frozenset({"1", "true", "yes"})


def mask_entries(spec: Masks, store: Store) -> Iterator[Entry]:
    """The masks below a root whose path matches the pattern.

    Raises:
        SourceError: if the root can't be listed, or no file matches.
    """
    expression = re.compile(spec.path)
    matched = False
    for file in store.list_source(spec.root):
        found = expression.fullmatch(file.path)
        if found is None:
            continue
        matched = True
        groups = found.groupdict()
        stated = groups.get("frame") or ""
        frame = frame_number(stated)
        yield Entry(
            image=groups["image"] or "",
            place=file.uri,
            beside=PurePosixPath(file.path).parts[:-1],
            frame=frame,
            box=wrong_frame(A_MASK) if stated and frame is None else None,
            mask={
                "uri": file.uri,
                "etag": file.etag,
                "bytes": file.bytes,
                "category": groups.get("category") or None,
            },
        )
    if not matched:
        raise SourceError(
            "No file matches the pattern of masks",
            where=spec.root,
            got=spec.path,
            remedy="it must match the whole path relative to the root, as "
            r"'(?P<image>.+)_mask\.png'",
        )


def csv_entries(spec: CsvBoxes, content: bytes) -> Iterator[Entry]:
    """The rows of a CSV file; a row without an image's name counts as one that names none.

    Raises:
        SourceError: if it is no CSV in UTF-8, or lacks a column.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SourceError(
            "The file of boxes can't be read", where=spec.file, got="no UTF-8"
        ) from None
    lines = io.StringIO(text, newline=None)  # lines end as on any system
    head, row_number = lines.readline(), 0
    lines.seek(0)
    rows = csv.DictReader(lines, delimiter=max(",;\t", key=head.count))
    try:
        columns = _csv_columns(spec, rows.fieldnames or ())
        row_number = 1
        for row_number, row in enumerate(rows, 2):  # the header is row 1
            values = {field: (row.get(column) or "").strip() for field, column in columns.items()}
            yield _csv_entry(spec, row_number, values)
    except csv.Error:
        raise SourceError(
            "The file of boxes can't be parsed", where=spec.file, got=f"row {row_number + 1}"
        ) from None


def _csv_entry(spec: CsvBoxes, row_number: int, values: Mapping[str, str]) -> Entry:
    name, stated = f"row {row_number}", values.get("frame", "")
    frame = frame_number(stated)
    if stated and frame is None:
        told = wrong_frame(name)
    else:
        told = _csv_box(name, values, corners=spec.boxes == "corners")
    return Entry(
        image=values["image"],
        place=f"{spec.file}#{name}",
        frame=frame,
        box=told,
    )


def _csv_columns(spec: CsvBoxes, names: Any) -> dict[str, str]:
    edges = _CORNERS if spec.boxes == "corners" else _XYWH
    # The phantoms' files call it path, as metadata files do.
    image = "image" if "image" in names else "path"
    wanted = {"image": image} | {edge: edge for edge in edges} | dict(spec.columns)
    missing = [f"`{column}`" for column in wanted.values() if column not in names]
    if missing:
        raise SourceError(
            "The file of boxes does not fit",
            where=spec.file,
            got=f"no column {', '.join(missing)}",
            remedy=f"columns of the file: {', '.join(names)}; name them in `columns`",
        )
    return {field: field for field in CSV_FIELDS if field in names} | wanted


def _csv_box(name: str, values: Mapping[str, str], *, corners: bool) -> dict[str, Any]:
    found = [number(values[edge]) for edge in (_CORNERS if corners else _XYWH)]
    if corners and None not in found:
        left, top, right, bottom = (float(one or 0) for one in found)
        found = [left, top, right - left, bottom - top]
    area = values.get("area") or None
    return box(
        name,
        category=values.get("category") or None,
        edges=tuple(found),
        # A text that is no number is not the same as none at all.
        area=None if area is None else _or_nan(number(area)),
        iscrowd=values.get("iscrowd", "").lower() in _TRUE,
    )


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def coco_entries(spec: CocoBoxes, content: bytes) -> Iterator[Entry]:
    """The images of a COCO file, then its annotations.

    Annotations whose id occurs twice or is no positive whole number, whose category the file does
    not define, or whose image it does not list, come as faults: nothing is left out quietly.

    Raises:
        SourceError: if it is no JSON of lists of images, annotations and categories.
    """
    document = _document(spec, content)
    categories = _categories(document["categories"])
    counted = Counter(_key(one.get("id")) for one in document["images"])
    images = {key: one for one in document["images"] if (key := _key(one.get("id"))) != _NO_ID}
    for image in document["images"]:
        key = _key(image.get("id"))
        told = None
        if key == _NO_ID:
            told = fault(f"image {key}", RejectReason.INVALID_ID, "its id is no whole number")
        elif counted[key] > 1:
            told = fault(f"image {key}", RejectReason.DUPLICATE_ID, "its id occurs twice")
        yield _coco_entry(spec, f"image {key}", image, told)
    ids = Counter(_key(one.get("id")) for one in document["annotations"])
    for annotation in document["annotations"]:
        key = _key(annotation.get("id"))
        named = f"annotation {key}"
        image = images.get(_key(annotation.get("image_id")), {})
        yield _coco_entry(
            spec, named, image, _coco_box(named, annotation, categories, repeated=ids[key] > 1)
        )


def _coco_entry(
    spec: CocoBoxes, named: str, image: Mapping[str, Any], told: dict[str, Any] | None
) -> Entry:
    name, frame = image.get("file_name"), image.get("frame")
    if frame is not None and not _is_whole(frame) and (told is None or told["reason"] is None):
        told = wrong_frame(f"image {_key(image.get('id'))}")
    height, width = image.get("height"), image.get("width")
    stated = isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0
    return Entry(
        image=name if isinstance(name, str) else "",
        place=f"{spec.file}#{named}",
        frame=frame if _is_whole(frame) else None,
        size=(int(height or 0), int(width or 0)) if stated else None,
        box=told,
    )


def _coco_box(
    name: str, annotation: Mapping[str, Any], categories: Mapping[str, str], *, repeated: bool
) -> dict[str, Any]:
    given = annotation.get("id")
    if not _is_whole(given) or given < 1:
        return fault(name, RejectReason.INVALID_ID, "ids are whole numbers from 1")
    if repeated:
        return fault(name, RejectReason.DUPLICATE_ID, "its id occurs twice")
    category = categories.get(_key(annotation.get("category_id")))
    if category is None:
        return fault(
            name, RejectReason.UNKNOWN_CATEGORY, "the file does not define its category, or twice"
        )
    edges = annotation.get("bbox")
    if not isinstance(edges, list) or len(edges) != 4:
        return fault(name, RejectReason.MALFORMED_ANNOTATION, "its bbox is no list of four")
    area = annotation.get("area")
    return box(
        name,
        category=category,
        edges=tuple(number(edge) for edge in edges),
        area=None if area is None else _or_nan(number(area)),
        iscrowd=annotation.get("iscrowd") in (1, True),
    )


def _document(spec: CocoBoxes, content: bytes) -> dict[str, list[dict[str, Any]]]:
    names = ("images", "annotations", "categories")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    lists = document if isinstance(document, dict) else {}
    found = {name: lists.get(name) for name in names}
    wrong = [
        name
        for name, values in found.items()
        if not isinstance(values, list) or not all(isinstance(one, dict) for one in values)
    ]
    if wrong:
        raise SourceError(
            "The file is no COCO data set",
            where=spec.file,
            got="no JSON" if document is None else f"no list of objects in {', '.join(wrong)}",
            remedy="it must hold images, annotations and categories; a list of results is none",
        )
    return {name: values or [] for name, values in found.items()}


def _categories(listed: list[dict[str, Any]]) -> dict[str, str]:
    """Names by id; an id that occurs twice means nothing."""
    counted = Counter(_key(one.get("id")) for one in listed)
    return {
        _key(one.get("id")): name
        for one in listed
        if counted[_key(one.get("id"))] == 1 and isinstance(name := one.get("name"), str) and name
    }


def _key(value: object) -> str:
    """An id for comparing and for messages; text is not told, for it may hold anything."""
    return str(value) if _is_whole(value) else _NO_ID


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
