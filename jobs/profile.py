"""The kind `profile`: the distributions of a data set, and the records that look wrong."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from jobs.annotated import choose_source
from jobs.datasets import require_dataset
from jobs.pending import VIEWS
from jobs.rows import digest_rows
from jobs.whole import Whole, is_answered, plan_whole, run_whole
from schemas.plan import Plan
from schemas.protocols import Pool, Report, Store
from schemas.specs.profile import ProfileSpec

_DESCRIBING = 1
"""Raised when the same images give other figures or pictures than before."""

_IMAGES = """
SELECT image_id, label, sex, age, width, height, patient_id,
    coalesce(found.boxes, []) AS boxes
FROM {view} AS images LEFT JOIN (
    SELECT image_id, list(w::DOUBLE * h ORDER BY y, x, w, h) AS boxes
    FROM current_annotations WHERE source = $source AND NOT coalesce(iscrowd, false)
    GROUP BY image_id
) AS found USING (image_id)
WHERE dataset = $dataset ORDER BY uri, frame, image_id
"""
_COLUMNS = ("image_id", "label", "sex", "age", "width", "height", "patient_id", "boxes")


def plan(spec: ProfileSpec, store: Store) -> Plan:
    """Plan the figures of all images, or nothing where the newest ones are of just these.

    Raises:
        SourceError: if several sources have annotated the data set and the spec names none, or one
            that has not; or if the lake has no such data set.
    """
    source, rows = _read(spec, store)
    folder = _folder(spec)
    facts = {"boxes of": source} if source is not None else {}
    if spec.pictures and rows.num_rows:
        facts["pictures"] = f"{store.root}/{folder}"
    whole = Whole(
        key=key(spec),
        identity=identity(spec, source, rows),
        rows=rows,
        params={
            "profile": spec.name,
            "dataset": spec.dataset,
            "adult_labels": list(spec.adult_labels),
            "max_age": spec.max_age,
            "max_box_share": spec.max_box_share,
            "min_box_share": spec.min_box_share,
            "pictures": spec.pictures,
            "target": f"{store.root}/{folder}",
        },
        facts=facts,
    )
    return plan_whole(spec, whole, known=is_answered(spec, whole, store))


def run(spec: ProfileSpec, pool: Pool, store: Store) -> Report:
    """Describe the data set, unless it is described already."""
    return run_whole(spec, lambda: plan(spec, store), pool, store)


def key(spec: ProfileSpec) -> tuple[str, ...]:
    """A run alone may write a profile of a data set."""
    return (spec.kind, spec.dataset, spec.name)


def identity(spec: ProfileSpec, source: str | None, rows: pa.Table) -> Mapping[str, Any]:
    """What the figures depend on: the question, whose boxes, and what is known of the images."""
    return spec.identity() | {
        "describing": _DESCRIBING,
        "profile": spec.name,
        "boxes_of": source,
        "rows": digest_rows(rows, _COLUMNS),
    }


def _read(spec: ProfileSpec, store: Store) -> tuple[str | None, pa.Table]:
    """Whose boxes count, and the images with the areas of theirs."""
    require_dataset(spec.dataset, store)
    source = choose_source(spec.dataset, spec.source, store)
    asked = {"dataset": spec.dataset, "source": source}
    return source, store.query(_IMAGES.format(view=VIEWS[spec.images]), asked)


def _folder(spec: ProfileSpec) -> str:
    """Where pictures and CSV files lie below the lake."""
    return f"reports/profile/{spec.dataset}/{spec.name}"
