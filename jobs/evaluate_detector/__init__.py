"""The kind `evaluate_detector`: compare detections with annotations, part by part."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from jobs.batch import run_batch
from jobs.evaluate_detector.asking import Question
from jobs.evaluate_detector.finding import find_rows, missing, usable
from jobs.rows import digest_rows
from schemas.naming import reference
from schemas.plan import Counts, Plan, run_fingerprint
from schemas.protocols import Pool, Report, Store
from schemas.specs.evaluate_detector import EvaluateDetectorSpec

_JUDGING = 1
"""Raised when the same rows give other figures than before."""
_COLUMNS = ("image_id", "part", "group", "scored_by", "marks")


def plan(spec: EvaluateDetectorSpec, store: Store) -> Plan:
    """Plan the figures of every part, or nothing where the newest ones are of these very rows.

    Images that were not annotated, or not scored, count in no figure; the plan's facts say how many
    there are.

    Raises:
        BundleError: if the lake has no such bundle, or it is no detector.
        LeakError: if the model learned from what it would be evaluated on.
        SourceError: if no such source has annotated the data set.
        SplitError: if the split has no such part or fold.
    """
    question = Question.of(spec, store)
    return _plan(question, store, find_rows(question, store))


def run(spec: EvaluateDetectorSpec, pool: Pool, store: Store) -> Report:
    """Compute the figures, unless they are there already."""
    with store.snapshot():
        question = Question.of(spec, store)
        stated = identity(question, usable(find_rows(question, store), question))
    return run_batch(
        spec,
        # Read anew under the lease: another driver may have scored or annotated meanwhile.
        lambda: _plan(question, store, find_rows(question, store)),
        pool,
        store,
        key=question.key,
        identity=stated,
    )


def identity(question: Question, rows: pa.Table) -> Mapping[str, Any]:
    """What the figures depend on: the question, what is marked, and which run scored."""
    return question.content | {"judging": _JUDGING, "rows": digest_rows(rows, _COLUMNS)}


def _plan(question: Question, store: Store, found: pa.Table) -> Plan:
    spec, rows = question.spec, usable(found, question)
    stated = identity(question, rows)
    last = store.last_run(question.key)
    known = last is not None and last["fingerprint"] == run_fingerprint(spec.kind, stated)
    inputs = rows.drop_columns(["scored_by"])
    inputs = inputs.slice(0, 0) if known else inputs
    facts: dict[str, Any] = {"model": reference(question.bundle)} | missing(found)
    if spec.pictures and rows.num_rows:
        facts["pictures"] = question.pictures
    return Plan(
        kind=spec.kind,
        name=spec.name,
        key=question.key,
        identity=stated,
        params=question.params | {"target": f"{store.root}/{question.pictures}"},
        inputs=inputs,
        # One shard: average precision and a resampled figure need all images at once.
        bounds=(0, inputs.num_rows) if inputs.num_rows else (),
        counts=Counts(up_to_date=rows.num_rows) if known else Counts(),
        facts=facts,
    )
