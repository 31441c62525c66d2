"""The work of evaluating a detector: figures by part from marked boxes and detections."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.plan import Blob, ShardFunction, ShardResult
from schemas.tables import rows_of
from workers.detection.boxes import Boxes, Detections, corners_of
from workers.detection.matching import Outcomes, choose_threshold, join, match
from workers.metrics.classification import Key
from workers.metrics.detection import Judged, coco_figures
from workers.metrics.froc import Curve, Froc, froc_figures
from workers.metrics.lesions import NOTHING, Lesions, lesion_figures

SHOWN = {("ap", None): "ap", ("ap50", None): "ap50", ("f1", None): "macro f1"} | {
    ("froc", "1"): "sensitivity at 1 false positive an image"
}
"""Figures that the user is told at the job's end."""

Figures = Mapping[Key, tuple[float, tuple[float, float] | None]]
Draw = Callable[[NDArray[np.int64], tuple[str, ...], Curve], Mapping[str, bytes]]
"""Makes pictures of a confusion matrix, the names of its rows, and a FROC curve."""


def load(params: Mapping[str, Any], draw: Draw | None = None) -> ShardFunction:
    """Make the function that evaluates one detector on all its scored images at once.

    ``params``: ``classes``; ``merged``, whether all categories are the one class; ``taken``, the
    categories whose boxes count (null for all), others being ignored regions; ``parts``; ``iou``;
    ``threshold`` (null for the best on ``sweep_part``); ``bootstrap``, ``seed`` and ``columns``,
    the columns of `metrics` equal in all rows. Rows have the columns ``image_id``, ``part``,
    ``group`` (the patient), ``marks`` (category, x, y, w, h, area, ignored) and ``found``
    (category, score, x, y, w, h), px of the original. ``draw`` makes the pictures of a part.
    """
    asked = _Asked(params, tuple(params["classes"]))

    def evaluate(rows: pa.Table, _blobs: Sequence[Blob]) -> ShardResult:
        threshold = asked.threshold(rows)
        found: list[dict[str, object]] = []
        facts: dict[str, float] = {"threshold": threshold}
        files: dict[str, bytes] = {}
        for part in params["parts"]:
            images = asked.images(rows, part)
            if not images:
                continue
            judged = asked.judge(images, threshold)
            constants = params["columns"] | {"part": part, "subgroup": ""}
            found += [
                _row(key, figure, len(images), constants) for key, figure in judged.figures.items()
            ]
            facts |= {
                f"{part} {told}": round(judged.figures[key][0], 4)
                for key, told in SHOWN.items()
                if key in judged.figures
            }
            if draw is not None:
                names = (NOTHING, *asked.classes)
                pictures = draw(judged.matrix_MM, names, judged.curve)
                files |= {f"{part}-{name}": data for name, data in pictures.items()}
        tables = {"metrics": rows_of("metrics", found)}
        return ShardResult(tables, done=rows.num_rows, rejected=0, files=files, facts=facts)

    return evaluate


@dataclass(frozen=True)
class _Part:
    figures: Figures
    matrix_MM: NDArray[np.int64]
    curve: Curve


@dataclass(frozen=True)
class _Asked:
    params: Mapping[str, Any]
    classes: tuple[str, ...]

    def images(self, rows: pa.Table, part: str) -> list[Judged]:
        """The images of a part."""
        taken = rows.filter(pc.equal(rows.column("part"), part))
        columns = (taken.column(name).to_pylist() for name in ("marks", "found", "group"))
        return [
            Judged(
                self._boxes(marks or []),
                np.asarray([mark["area"] for mark in marks or []], np.float32),
                self._detections(found or []),
                group,
            )
            for marks, found, group in zip(*columns, strict=True)
        ]

    def threshold(self, rows: pa.Table) -> float:
        """The operating point as stated, or the best on the sweep's part."""
        stated = self.params["threshold"]
        if stated is not None:
            return float(stated)
        swept = join(self._outcomes(self.images(rows, self.params["sweep_part"])))
        return choose_threshold(swept, len(self.classes)).threshold

    def judge(self, images: Sequence[Judged], threshold: float) -> _Part:
        """All figures of a part."""
        resamples, seed = int(self.params["bootstrap"]), int(self.params["seed"])
        groups = [image.group for image in images]
        outcomes = self._outcomes(images)
        lesions = Lesions.of(outcomes, groups, self.classes, threshold)
        froc = Froc.of(outcomes, groups)
        figures = {
            **coco_figures(images, self.classes, resamples=resamples, seed=seed),
            **lesion_figures(lesions, resamples=resamples, seed=seed),
            **froc_figures(froc, resamples=resamples, seed=seed),
            ("threshold", None): (threshold, None),
        }
        return _Part(figures, lesions.matrix(), froc.curve())

    def _outcomes(self, images: Sequence[Judged]) -> list[Outcomes]:
        overlap = float(self.params["iou"])
        return [match(image.detections, image.boxes, overlap) for image in images]

    def _boxes(self, marks: Sequence[Mapping[str, Any]]) -> Boxes:
        places = [self._place(mark["category"]) for mark in marks]
        ignored = [
            place is None or mark["ignored"] for place, mark in zip(places, marks, strict=True)
        ]
        return Boxes(
            corners_of(marks),
            np.asarray([place or 0 for place in places], np.int64),
            np.asarray(ignored, np.bool_),
        )

    def _detections(self, found: Sequence[Mapping[str, Any]]) -> Detections:
        places = [0 if self.params["merged"] else self._place(one["category"]) for one in found]
        return Detections(
            corners_of(found),
            np.asarray([one["score"] for one in found], np.float32),
            np.asarray(places, np.int64),
        )

    def _place(self, category: str | None) -> int | None:
        """The index of a category among the classes; None where it is none of those taken."""
        taken = self.params["taken"]
        if taken is not None and category not in taken:
            return None
        return 0 if self.params["merged"] else self.classes.index(str(category))


def _row(
    key: Key,
    figure: tuple[float, tuple[float, float] | None],
    images: int,
    constants: Mapping[str, object],
) -> dict[str, object]:
    (metric, category), (value, interval) = key, figure
    low, high = interval or (None, None)
    return {
        **constants,
        "metric": metric,
        "category": category,
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "n": images,
    }
