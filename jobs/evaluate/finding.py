"""The rows of an evaluation: images of a split with their labels and scores."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.evaluate.asking import Question
from jobs.learned import refuse_learned
from jobs.rows import GROUP, LATEST_SPLITS, count_folds, require_split
from schemas.naming import reference
from schemas.protocols import Store

_SCORES = """
    SELECT * FROM predictions WHERE model_id = {model}
    QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY run_id DESC) = 1
"""

_SCORED = f"""
WITH places AS ({LATEST_SPLITS}),
scored AS ({_SCORES.format(model="$model_id")}),
other AS ({_SCORES.format(model="$other_id")})
SELECT places.image_id, CASE WHEN $fold IS NULL THEN places.part ELSE 'test' END AS part,
    images.label, {GROUP} AS "group", images.sex, images.age, images.site,
    scored.scores, scored.run_id AS scored_by,
    other.scores AS other_scores, other.run_id AS other_scored_by
FROM places
JOIN current_images AS images ON images.image_id = places.image_id
LEFT JOIN scored ON scored.image_id = places.image_id
LEFT JOIN other ON other.image_id = places.image_id
WHERE images.dataset = $dataset AND CASE
    WHEN $fold IS NULL THEN places.part IN (SELECT unnest($parts))
    ELSE places.part IN ('train', 'val') AND places.fold = $fold END
ORDER BY places.image_id
"""


def find_rows(question: Question, store: Store) -> pa.Table:
    """The images of the parts, each with its patient, sex, age, site and newest scores.

    Columns of the other model are null where there is none.

    Raises:
        LeakError: if a model learned from an image it would be evaluated on, or from others of its
            patient or its group of near-duplicates.
        SourceError: if the lake has no such data set.
        SplitError: if the split has no images in the parts, or no such fold.
    """
    spec = question.spec
    if spec.fold is None:
        require_split(store, spec.dataset, spec.split, spec.parts)
    else:
        count_folds(store, spec.dataset, spec.split, spec.fold)
    found = store.query(
        _SCORED,
        {
            "split": spec.split,
            "dataset": spec.dataset,
            "model_id": question.bundle["model_id"],
            "other_id": question.other["model_id"] if question.other else None,
            "parts": list(spec.parts),
            "fold": spec.fold,
        },
    )
    for bundle in (question.bundle, question.other):
        if bundle is not None:
            refuse_learned(store, bundle, found, dataset=spec.dataset, split=spec.split)
    return found


def usable(found: pa.Table, question: Question) -> pa.Table:
    """Rows with a score and a label of the model's classes."""
    return found.filter(pc.and_(_labelled(found, question), pc.is_valid(found["scores"])))


def columns_asked(question: Question) -> tuple[str, ...]:
    """Columns beside labels and scores on which the figures depend."""
    other = ("other_scored_by",) if question.other is not None else ()
    return (*question.spec.subgroups, *other)


def missing(found: pa.Table, question: Question) -> dict[str, Any]:
    """How many images count in no figure, and why."""
    labelled = _labelled(found, question)
    counts = {
        "without a label": pc.invert(labelled),
        "without a score": pc.and_(labelled, pc.is_null(found["scores"])),
    }
    if question.other is not None:
        both = pc.and_(labelled, pc.is_valid(found["scores"]))
        unscored = pc.and_(both, pc.is_null(found["other_scores"]))
        counts[f"without a score by {reference(question.other)}"] = unscored
    return {name: int(pc.sum(mask).as_py() or 0) for name, mask in counts.items()}


def _labelled(found: pa.Table, question: Question) -> pa.ChunkedArray:
    return pc.is_in(found["label"], value_set=pa.array(question.bundle["classes"], pa.string()))
