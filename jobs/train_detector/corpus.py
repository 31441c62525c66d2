"""What a detector's training sees: its images, with boxes and without, and its classes."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs.corpora import Placed, read_placed
from schemas.errors import SplitError
from schemas.protocols import Store
from schemas.specs.train_detector import DetectorSpec

LESION = "lesion"
"""The one class that all categories are merged into."""

_COLUMNS = """
    images.width, images.height,
    places.image_id IN (SELECT image_id FROM annotated_images WHERE source = $source) AS looked_at
"""

_BOXES = """
SELECT image_id, source, category, x, y, w, h, coalesce(iscrowd, false) AS iscrowd
FROM current_annotations
WHERE list_contains($sources, source) AND w > 0 AND h > 0
    AND image_id IN (SELECT unnest($ids))
ORDER BY image_id, source, x, y, w, h, category
"""

_MARKS = pa.schema(
    [
        ("boxes", pa.list_(pa.float32())),
        ("categories", pa.list_(pa.int32())),
        ("ignored", pa.list_(pa.bool_())),
    ]
)


@dataclass(frozen=True)
class Corpus:
    """The images a training takes, and what was found about them."""

    rows: pa.Table
    """Columns ``image_id, uri, frame, etag, bytes, width, height, part, group``; ``boxes`` (x, y,
    width and height of each in one list, px of the original), ``categories`` and ``ignored``."""
    classes: tuple[str, ...]
    unseen: int
    """Images left out because the source has not looked at them."""
    placed: Placed
    counts: dict[str, dict[str, int]]
    """By part: ``images``, those ``without a box``, and boxes by class."""


def read_corpus(spec: DetectorSpec, store: Store) -> Corpus:
    """Read the images of parts train and val with their boxes.

    Raises:
        LeakError: if a patient, image or group of duplicates stands in two parts, unless the spec
            allows it.
        SplitError: if the split has no images, or none of a site, or no box of a class in train or
            none at all in val, or the split has no such fold.
    """
    found, placed = read_placed(spec, store, _COLUMNS, {"source": spec.annotations})
    rows = found if spec.images == "all" else found.filter(found["looked_at"])
    sources = [spec.annotations, *([spec.ignored] if spec.ignored else [])]
    ids = rows["image_id"].to_pylist()
    marks = store.query(_BOXES, {"sources": sources, "ids": ids}).to_pylist()
    of_image = defaultdict(list)
    for mark in marks:
        of_image[mark["image_id"]].append(mark)
    parts = dict(zip(ids, rows["part"].to_pylist(), strict=True))
    classes = _classes(spec, marks, parts)
    corpus = Corpus(
        _with_marks(spec, rows.drop_columns(["looked_at"]), of_image, classes),
        classes,
        found.num_rows - rows.num_rows,
        placed,
        counts={},
    )
    corpus.counts.update(_count(corpus))
    _check_parts(spec, corpus)
    return corpus


def _classes(
    spec: DetectorSpec, marks: Sequence[Mapping[str, Any]], parts: Mapping[str, str]
) -> tuple[str, ...]:
    if spec.one_class:
        return (LESION,)
    if spec.classes:
        return spec.classes
    named = {
        mark["category"]
        for mark in marks
        if parts[mark["image_id"]] == "train" and mark["category"] and not _is_ignored(spec, mark)
    }
    return tuple(sorted(named))


def _is_ignored(spec: DetectorSpec, mark: Mapping[str, Any]) -> bool:
    return bool(mark["iscrowd"]) or mark["source"] != spec.annotations


def _with_marks(
    spec: DetectorSpec,
    rows: pa.Table,
    of_image: Mapping[str, Sequence[Mapping[str, Any]]],
    classes: tuple[str, ...],
) -> pa.Table:
    """The rows with what is marked in each image."""
    index = {name: place for place, name in enumerate(classes)}
    columns: dict[str, list[list[Any]]] = {"boxes": [], "categories": [], "ignored": []}
    for image_id in rows["image_id"].to_pylist():
        marks = of_image.get(image_id, [])
        places = [_place(spec, mark["category"], index) for mark in marks]
        columns["boxes"].append([mark[edge] for mark in marks for edge in ("x", "y", "w", "h")])
        columns["categories"].append([place or 0 for place in places])
        columns["ignored"].append(
            [
                place is None or _is_ignored(spec, mark)
                for place, mark in zip(places, marks, strict=True)
            ]
        )
    for name, values in columns.items():
        rows = rows.append_column(_MARKS.field(name), pa.array(values, _MARKS.field(name).type))
    return rows


def _place(spec: DetectorSpec, category: str | None, index: Mapping[str, int]) -> int | None:
    """The index of a category, or None for one that is not to be learned."""
    if spec.one_class:
        return 0 if not spec.classes or category in spec.classes else None
    return index.get(category or "")


def _count(corpus: Corpus) -> dict[str, dict[str, int]]:
    counted: dict[str, Counter[str]] = {"train": Counter(), "val": Counter()}
    names = ("part", "categories", "ignored")
    for part, categories, ignored in zip(
        *(corpus.rows[name].to_pylist() for name in names), strict=True
    ):
        real = [
            corpus.classes[one] for one, other in zip(categories, ignored, strict=True) if not other
        ]
        counted[part].update(["images", *real, *(["without a box"] if not real else [])])
    shown = ("images", "without a box", *corpus.classes)
    return {part: {name: counts[name] for name in shown} for part, counts in counted.items()}


def _check_parts(spec: DetectorSpec, corpus: Corpus) -> None:
    where = f"data set {spec.dataset}, split {spec.split}, annotations of {spec.annotations}"
    for part, counts in corpus.counts.items():
        if not counts["images"]:
            raise SplitError(
                "The split has no annotated image in a part",
                where=where,
                got=f"no image in {part}, {corpus.unseen} images left out as not annotated",
                remedy="check the names of the data set, the split and the source; or set "
                "`images: all` where the source has looked at every image",
            )
        boxes = [name for name in corpus.classes if counts[name]]
        missing = [name for name in corpus.classes if not counts[name]]
        if not boxes or (part == "train" and missing):
            raise SplitError(
                "Every class needs boxes in train, and val needs a box",
                where=where,
                got=f"no {', no '.join(missing) or 'box'} in {part}",
                remedy="split with larger shares, or name the classes to train on; categories: "
                '`rayward query "SELECT source, category, count(*) FROM current_annotations '
                'GROUP BY 1, 2"`',
            )
