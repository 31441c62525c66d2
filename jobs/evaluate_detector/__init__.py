"""The kind `evaluate_detector`: compare detections with annotations, part by part."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from jobs.evaluate_detector.asking import Question
from jobs.evaluate_detector.finding import find_rows, missing, usable
from jobs.rows import digest_rows
from jobs.whole import Whole, is_answered, plan_whole, run_whole
from schemas.naming import reference
from schemas.plan import Plan
from schemas.protocols import Pool, Report, Store
from schemas.specs.evaluate_detector import EvaluateDetectorSpec

_JUDGING = 1
"""Raised when the same rows give other figures than before."""
_COLUMNS = ("image_id", "part", "group", "scored_by", "marks")


def plan(spec: EvaluateDetectorSpec, store: Store) -> Plan:
    """Plan the figures of every part, or nothing where the newest ones are of these very rows.

    Images that were not annotated, or not scored, count in no figure, nor do those whose annotation
    was rejected; the plan's facts say how many there are.

    Raises:
        BundleError: if the lake has no such bundle, or it is no detector.
        LeakError: if the model learned from what it would be evaluated on.
        SourceError: if no such source has annotated the data set.
        SplitError: if the split has no such part or fold.
    """
    return _plan(Question.of(spec, store), store)


def run(spec: EvaluateDetectorSpec, pool: Pool, store: Store) -> Report:
    """Compute the figures, unless they are there already."""
    with store.snapshot():
        question = Question.of(spec, store)
    return run_whole(spec, lambda: _plan(question, store), pool, store)


def identity(question: Question, rows: pa.Table) -> Mapping[str, Any]:
    """What the figures depend on: the question, what is marked, and which run scored."""
    return question.content | {"judging": _JUDGING, "rows": digest_rows(rows, _COLUMNS)}


def _plan(question: Question, store: Store) -> Plan:
    spec, found = question.spec, find_rows(question, store)
    rows = usable(found, question)
    facts: dict[str, Any] = {"model": reference(question.bundle)} | missing(found, question)
    if spec.pictures and rows.num_rows:
        facts["pictures"] = question.pictures
    whole = Whole(
        key=question.key,
        identity=identity(question, rows),
        rows=rows.drop_columns(["scored_by"]),
        params=question.params | {"target": f"{store.root}/{question.pictures}"},
        facts=facts,
    )
    return plan_whole(spec, whole, known=is_answered(spec, whole, store))
