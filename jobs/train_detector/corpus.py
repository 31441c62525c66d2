"""What a detector's training sees: its images, with boxes and without, and its classes."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs.annotated import LESION, annotation_of, is_taken, left_out
from jobs.corpora import Placed, read_placed
from schemas.errors import SplitError
from schemas.protocols import Store
from schemas.specs.train_detector import DetectorSpec

_COLUMNS = f"""
    images.width, images.height, {annotation_of("places.image_id")} AS annotation
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
class Counted:
    """What there is to learn from in a part."""

    images: int
    without_a_box: int
    """Those in which nothing is to be learned as a lesion."""
    boxes: Mapping[str, int]
    """By class."""

    def told(self) -> dict[str, Any]:
        """For the model card; a category may have any name, so boxes stand apart."""
        return {
            "images": self.images,
            "without a box": self.without_a_box,
            "boxes": dict(self.boxes),
        }


@dataclass(frozen=True)
class Corpus:
    """The images a training takes, and what was found about them."""

    rows: pa.Table
    """Columns ``image_id, uri, frame, etag, bytes, width, height, part, group``; ``boxes`` (x, y,
    width and height of each in one list, px of the original), ``categories`` and ``ignored``."""
    classes: tuple[str, ...]
    left_out: Mapping[str, int]
    """Images that are not learned from, by cause."""
    placed: Placed
    counts: Mapping[str, Counted]
    """By part."""


def read_corpus(spec: DetectorSpec, store: Store) -> Corpus:
    """Read the images of parts train and val with their boxes.

    Raises:
        LeakError: if a patient or group of duplicates stands in two parts, unless the spec
            allows it.
        SplitError: if the split has no images, or none of a site, or no box of a class in train or
            none at all in val, or the split has no such fold.
    """
    found, placed = read_placed(spec, store, _COLUMNS, {"source": spec.annotations})
    rows = found.filter(is_taken(found["annotation"], spec.images))
    sources = [spec.annotations, *([spec.ignored] if spec.ignored else [])]
    ids = rows["image_id"].to_pylist()
    marks = store.query(_BOXES, {"sources": sources, "ids": ids}).to_pylist()
    of_image = defaultdict(list)
    for mark in marks:
        of_image[mark["image_id"]].append(mark)
    parts = dict(zip(ids, rows["part"].to_pylist(), strict=True))
    classes = _classes(spec, marks, parts)
    marked = _with_marks(spec, rows.drop_columns(["annotation"]), of_image, classes)
    corpus = Corpus(
        rows=marked,
        classes=classes,
        left_out=left_out(found["annotation"], spec.images),
        placed=placed,
        counts=_count(marked, classes),
    )
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


def _count(rows: pa.Table, classes: tuple[str, ...]) -> dict[str, Counted]:
    of_images: dict[str, list[list[int]]] = {"train": [], "val": []}
    names = ("part", "categories", "ignored")
    for part, categories, ignored in zip(*(rows[name].to_pylist() for name in names), strict=True):
        of_images[part].append(
            [one for one, other in zip(categories, ignored, strict=True) if not other]
        )
    counted = {}
    for part, images in of_images.items():
        places = Counter(place for image in images for place in image)
        counted[part] = Counted(
            images=len(images),
            without_a_box=sum(not image for image in images),
            boxes={name: places[place] for place, name in enumerate(classes)},
        )
    return counted


def _check_parts(spec: DetectorSpec, corpus: Corpus) -> None:
    where = f"data set {spec.dataset}, split {spec.split}, annotations of {spec.annotations}"
    left = ", ".join(f"{count} {cause}" for cause, count in corpus.left_out.items())
    for part, counts in corpus.counts.items():
        if not counts.images:
            raise SplitError(
                "The split has no annotated image in a part",
                where=where,
                got=f"no image in {part}; left out: {left}",
                remedy="check the names of the data set, the split and the source; or set "
                "`images: all` where the source has looked at every image",
            )
        missing = [name for name, count in counts.boxes.items() if not count]
        if not any(counts.boxes.values()) or (part == "train" and missing):
            raise SplitError(
                "Every class needs boxes in train, and val needs a box",
                where=where,
                got=f"no {', no '.join(missing) or 'box'} in {part}",
                remedy="split with larger shares, or name the classes to train on; categories: "
                '`rayward query "SELECT source, category, count(*) FROM current_annotations '
                'GROUP BY 1, 2"`',
            )
