"""The rows of a detector's evaluation: images of a split, what is marked and what was found."""

import pyarrow as pa
import pyarrow.compute as pc

from jobs.annotated import MARKED, annotation_of, is_taken, left_out, require_sources
from jobs.evaluate_detector.asking import Question
from jobs.learned import refuse_learned
from jobs.rows import GROUP, LATEST_SPLITS, count_folds, require_split
from schemas.errors import SplitError
from schemas.protocols import Store

_ROWS = f"""
WITH places AS ({LATEST_SPLITS}),
scored AS (
    SELECT image_id, max(run_id) AS run_id FROM predictions
    WHERE model_id = $model_id GROUP BY image_id
),
marked AS ({MARKED}),
detected AS (
    SELECT detections.image_id, list({{
        'category': category, 'score': score, 'x': x, 'y': y, 'w': w, 'h': h
    }} ORDER BY score DESC, x, y, w, h, category) AS found
    FROM detections JOIN scored USING (image_id, run_id)
    WHERE detections.model_id = $model_id GROUP BY detections.image_id
)
SELECT places.image_id, CASE WHEN $fold IS NULL THEN places.part ELSE 'test' END AS part,
    {GROUP} AS "group", marked.marks, detected.found, scored.run_id AS scored_by,
    {annotation_of("places.image_id")} AS annotation
FROM places
JOIN current_images AS images ON images.image_id = places.image_id
LEFT JOIN marked ON marked.image_id = places.image_id
LEFT JOIN scored ON scored.image_id = places.image_id
LEFT JOIN detected ON detected.image_id = places.image_id
WHERE images.dataset = $dataset AND CASE
    WHEN $fold IS NULL THEN places.part IN (SELECT unnest($parts))
    ELSE places.part IN ('train', 'val') AND places.fold = $fold END
ORDER BY places.image_id
"""


def find_rows(question: Question, store: Store) -> pa.Table:
    """The images of the parts with their patient, what is marked in them and what was found.

    Raises:
        LeakError: if the model learned from an image it would be evaluated on, or from others of
            its patient or its group of near-duplicates.
        SourceError: if a source of annotations has looked at no image of the data set.
        SplitError: if the split has no images in the parts, or no such fold.
    """
    spec = question.spec
    if spec.fold is None:
        require_split(store, spec.dataset, spec.split, question.parts_read)
    else:
        count_folds(store, spec.dataset, spec.split, spec.fold)
    sources = [one for one in (spec.annotations, spec.ignored) if one is not None]
    require_sources(spec.dataset, sources, store)
    found = store.query(
        _ROWS,
        {
            "split": spec.split,
            "dataset": spec.dataset,
            "model_id": question.bundle["model_id"],
            "source": spec.annotations,
            "sources": sources,
            "parts": question.parts_read,
            "fold": spec.fold,
        },
    )
    refuse_learned(store, question.bundle, found, dataset=spec.dataset, split=spec.split)
    return found


def usable(found: pa.Table, question: Question) -> pa.Table:
    """The images that are taken and were scored.

    Raises:
        SplitError: if a sweep has none to choose on.
    """
    spec = question.spec
    taken = is_taken(found["annotation"], spec.images)
    rows = found.filter(pc.and_(taken, pc.is_valid(found["scored_by"])))
    swept = pc.sum(pc.equal(rows["part"], spec.sweep_part)).as_py()
    if spec.threshold == "sweep" and rows.num_rows and not swept:
        raise SplitError(
            "There is no image to choose a threshold on",
            where=f"data set {spec.dataset}, split {spec.split}, part {spec.sweep_part}",
            got="none that is annotated and scored",
            remedy="score that part, too, or set `threshold: bundle`",
        )
    return rows.drop_columns(["annotation"])


def missing(found: pa.Table, question: Question) -> dict[str, int]:
    """How many images count in no figure, and why."""
    images = question.spec.images
    unscored = pc.and_(is_taken(found["annotation"], images), pc.is_null(found["scored_by"]))
    return left_out(found["annotation"], images) | {
        "without a score": int(pc.sum(unscored).as_py() or 0)
    }
