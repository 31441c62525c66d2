"""The kind `review`: list boxes that annotations are likely to lack."""

from collections.abc import Mapping
from typing import Any

from jobs.review.finding import Reviewed, find_images
from jobs.rows import digest_rows
from jobs.whole import Whole, is_answered, plan_whole, run_whole
from schemas.naming import segment
from schemas.plan import Plan
from schemas.protocols import Pool, Report, Store
from schemas.specs.review import ReviewSpec

_JUDGING = 2
"""Raised when the same rows give another list than before."""
_COLUMNS = ("image_id", "marks", "found")


def plan(spec: ReviewSpec, store: Store) -> Plan:
    """Plan the images that a model may judge, or nothing where the newest list is of these rows.

    A model judges no image that it was trained or validated on, nor others of their patients or
    near-duplicates; the plan's facts say how many images no model may judge, how many none has
    scored, and how many do not count because of their annotation.

    Raises:
        BundleError: if the lake has no such bundle, or it is no detector.
        SourceError: if no such source has annotated the data set.
        SplitError: if the split has no images.
    """
    reviewed = find_images(spec, store)
    folder = "/".join(("reports", "review", segment(spec.dataset), segment(spec.name)))
    facts = dict(reviewed.facts)
    if reviewed.rows.num_rows:
        facts["files"] = f"{store.root}/{folder}"
    whole = Whole(
        key=key(spec),
        identity=identity(spec, reviewed),
        rows=reviewed.rows,
        params={
            "columns": {
                "review": spec.name,
                "dataset": spec.dataset,
                "source": spec.annotations,
            },
            "classes": reviewed.classes,
            "iou": spec.iou,
            "limit": spec.limit,
            "target": f"{store.root}/{folder}",
        },
        facts=facts,
    )
    return plan_whole(spec, whole, known=is_answered(spec, whole, store))


def run(spec: ReviewSpec, pool: Pool, store: Store) -> Report:
    """Make the list, unless it is there already."""
    return run_whole(spec, lambda: plan(spec, store), pool, store)


def key(spec: ReviewSpec) -> tuple[str, ...]:
    """A run alone may write a review of a data set."""
    return (spec.kind, spec.dataset, spec.name)


def identity(spec: ReviewSpec, reviewed: Reviewed) -> Mapping[str, Any]:
    """What the list depends on: the question, the boxes and the detections."""
    return spec.identity() | {
        "judging": _JUDGING,
        "review": spec.name,
        "models": [bundle["model_id"] for bundle in reviewed.bundles],
        "rows": digest_rows(reviewed.rows, _COLUMNS),
    }
