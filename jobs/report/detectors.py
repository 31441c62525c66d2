"""Tables over evaluations of detectors: average precision, by category, and confusion."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.report.cells import Cell, Row, StudyTable
from jobs.report.outcomes import Figure
from schemas.errors import BundleError
from schemas.protocols import Store
from schemas.specs.base import identity_of
from schemas.specs.evaluate_detector import EvaluateDetectorSpec

PRECISIONS: Mapping[str, str] = {
    "mAP": "ap", "AP50": "ap50", "AP75": "ap75",
    "APS": "ap_small", "APM": "ap_medium", "APL": "ap_large",
}  # fmt: skip
"""Titles of COCO's figures: all overlaps, two of them, and small, medium and large boxes."""
SENSITIVITIES = ("0.125", "0.25", "0.5", "1", "2", "4", "8")
"""False positives an image at which the sensitivity is told."""
COUNTS: Mapping[str, str] = {
    "total": "total", "over-detections": "over_detections", "misses": "misses",
}  # fmt: skip
RATIOS: Mapping[str, str] = {"precision": "precision", "recall": "recall", "F1": "f1"}
ALL = "all"
"""The row of all categories: sums of counts, means of ratios."""
_GAP = "-"

_RUNS = """
SELECT run_id, name, spec FROM runs WHERE kind = 'evaluate_detector'
QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY recorded_at DESC) = 1
    AND state = 'published' ORDER BY run_id
"""
_FIGURES = """
SELECT part, metric, category, value, ci_low, ci_high FROM metrics
WHERE run_id = $run_id AND model_id = $model_id
"""
_TRAINED = """
SELECT spec FROM runs
WHERE kind = 'train_detector' AND state = 'published' AND run_id = (
    SELECT min(run_id) FROM models WHERE name = $name AND version = $version)
ORDER BY recorded_at DESC LIMIT 1
"""
"""The run that made a version wrote its first row; marking it writes more."""

Key = tuple[str, str, str | None]
"""Part, metric and category."""


@dataclass(frozen=True)
class Evaluated:
    """A job that evaluates a detector, with what the lake has of it."""

    job: EvaluateDetectorSpec
    trained: Mapping[str, str] = field(default_factory=dict)
    """How its model was trained, by column."""
    figures: Mapping[Key, Figure] = field(default_factory=dict)

    @property
    def trial(self) -> str:
        """What the rows of the evaluation are called."""
        return self.job.trial or self.job.model

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts that are reported."""
        return self.job.parts if self.job.fold is None else ("test",)

    def categories(self, part: str) -> list[str]:
        """The categories of a part, in their order."""
        return [
            category or ""
            for (of, metric, category) in self.figures
            if (of, metric) == (part, "total") and category is not None
        ]

    def threshold(self, part: str) -> str:
        """The confidence from which a detection counts."""
        found = self.figures.get((part, "threshold", None))
        return _GAP if found is None else f"{found.value:g}"


def evaluated(jobs: Sequence[EvaluateDetectorSpec], store: Store) -> list[Evaluated]:
    """Each job with the figures of its newest run on the newest version of its bundle.

    What was not evaluated yet has no figures.
    """
    runs = [row | {"spec": json.loads(row["spec"])} for row in store.query(_RUNS).to_pylist()]
    return [_evaluated(job, runs, store) for job in jobs]


def _evaluated(
    job: EvaluateDetectorSpec, runs: Sequence[Mapping[str, Any]], store: Store
) -> Evaluated:
    try:
        bundle = store.bundle(job.model)
    except BundleError:  # not trained yet
        return Evaluated(job)
    trained = _trained(bundle, store)
    asked = [row["run_id"] for row in runs if _is_of(job, row["spec"])]
    if not asked:
        return Evaluated(job, trained)
    wanted = {"run_id": asked[-1], "model_id": bundle["model_id"]}
    figures = {
        (row["part"], row["metric"], row["category"]): Figure(
            row["value"], row["ci_low"], row["ci_high"]
        )
        for row in store.query(_FIGURES, wanted).to_pylist()
    }
    return Evaluated(job, trained, figures)


def _is_of(job: EvaluateDetectorSpec, stated: Mapping[str, Any]) -> bool:
    study = stated.get("study") or stated.get("name")
    return study == (job.study or job.name) and (
        identity_of(EvaluateDetectorSpec, stated) == job.identity()
    )


def _trained(bundle: Mapping[str, Any], store: Store) -> dict[str, str]:
    """Family, backbone, how it was freed, start, epochs and size of a training."""
    asked = {"name": bundle["name"], "version": bundle["version"]}
    rows = store.query(_TRAINED, asked)["spec"].to_pylist()
    spec = json.loads(rows[0]) if rows else {}
    stages = spec.get("stages") or [{"epochs": spec.get("epochs", _GAP)}]
    epochs = [one["epochs"] for one in stages]
    return {
        "family": str(bundle["family"]),
        "backbone": str(bundle["architecture"]),
        "weights": str(spec.get("backbone", _GAP)),
        "start": str(spec.get("start", _GAP)).partition(":")[2] or str(spec.get("start", _GAP)),
        "epochs": _GAP if _GAP in epochs else str(sum(epochs)),
        "size": str(spec.get("preprocess", {}).get("size", _GAP)),
    }


_TRAINED_BY = ("family", "backbone", "weights", "start", "classes", "epochs", "size")


def precision_table(found: Sequence[Evaluated]) -> StudyTable:
    """COCO's average precision of each evaluation and part, with how its model was trained."""
    rows = [
        Row(
            (part, one.trial, *_how(one, part)),
            tuple(_cell(one, part, metric) for metric in PRECISIONS.values()),
        )
        for part in _parts(found)
        for one in found
        if part in one.parts
    ]
    axes = ("part", "trial", *_TRAINED_BY)
    return _table("Average precision (COCO)", axes, list(PRECISIONS), rows)


def sensitivity_table(found: Sequence[Evaluated]) -> StudyTable:
    """Sensitivity at given false positives an image, whatever a lesion is taken for."""
    rows = [
        Row((part, one.trial), tuple(_cell(one, part, "froc", rate) for rate in SENSITIVITIES))
        for part in _parts(found)
        for one in found
        if part in one.parts
    ]
    columns = [f"at {rate}" for rate in SENSITIVITIES]
    return _table("Sensitivity at false positives an image", ("part", "trial"), columns, rows)


def category_table(found: Sequence[Evaluated]) -> StudyTable:
    """Lesions, over-detections, misses, precision, recall and F1 of each category and of all."""
    rows = [
        Row(
            (
                part,
                one.trial,
                f"{one.job.iou:g}",
                one.threshold(part),
                category or ALL,
                *(_count(one, part, metric, category) for metric in COUNTS.values()),
            ),
            tuple(_cell(one, part, metric, category) for metric in RATIOS.values()),
        )
        for part in _parts(found)
        for one in found
        for category in ((*one.categories(part), None) if part in one.parts else ())
    ]
    axes = ("part", "trial", "overlap", "confidence", "category", *COUNTS)
    return _table("By category", axes, list(RATIOS), rows)


def confusion_table(one: Evaluated, part: str) -> StudyTable:
    """The confusion matrix, actual by row and found by column; none stands for nothing."""
    names = ("none", *one.categories(part))
    rows = [
        Row(
            (
                one.trial,
                actual,
                *(_count(one, part, "confusion", f"{actual}|{called}") for called in names),
            ),
            (),
        )
        for actual in names
    ]
    name = f"Confusion, {one.trial}, part {part}, confidence {one.threshold(part)}"
    return _table(name, ("trial", "actual", *names), [], rows)


def all_tables(found: Sequence[Evaluated]) -> list[StudyTable]:
    """All tables: those over evaluations, then the matrix of each that has figures, by part."""
    matrices = [
        confusion_table(one, part) for one in found for part in one.parts if one.categories(part)
    ]
    return [precision_table(found), sensitivity_table(found), category_table(found), *matrices]


def detector_notes(found: Sequence[Evaluated]) -> list[str]:
    """What is missing."""
    missing = [one.trial for one in found if not one.figures]
    if not missing:
        return []
    return [f"No figures of {len(missing)} of {len(found)}: {'; '.join(missing)}."]


def _how(one: Evaluated, part: str) -> list[str]:
    classes = len(one.categories(part))
    told = {**one.trained, "classes": str(classes) if classes else _GAP}
    return [told.get(name, _GAP) for name in _TRAINED_BY]


def _parts(found: Sequence[Evaluated]) -> list[str]:
    return list(dict.fromkeys(part for one in found for part in one.parts))


def _cell(one: Evaluated, part: str, metric: str, category: str | None = None) -> Cell:
    figure = one.figures.get((part, metric, category))
    if figure is None:
        return Cell(None, expected=1)
    return Cell(figure.value, figure.low, figure.high, 1, 1)


def _count(one: Evaluated, part: str, metric: str, category: str | None) -> str:
    figure = one.figures.get((part, metric, category))
    return _GAP if figure is None else f"{figure.value:.0f}"


def _table(
    name: str, axes: tuple[str, ...], columns: Sequence[str], rows: Sequence[Row]
) -> StudyTable:
    return StudyTable(
        name=name,
        row_axes=axes,
        columns=tuple((title,) for title in columns),
        rows=tuple(rows),
        part="",
        statistic="mean",
        choices=(),
    )
