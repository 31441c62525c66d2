"""The kind `evaluate`: compare predictions with labels, part by part."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from jobs.evaluate.asking import Question
from jobs.evaluate.finding import columns_asked, find_rows, missing, usable
from jobs.rows import digest_rows
from jobs.whole import Whole, plan_whole, run_whole
from schemas.plan import Plan, fingerprint, run_fingerprint
from schemas.protocols import Pool, Report, Store
from schemas.specs.evaluate import EvaluateSpec

_ASKED = "_asked"
"""The fact under which a run notes a hash of its question."""


def plan(spec: EvaluateSpec, store: Store) -> Plan:
    """Plan the figures of every part, or nothing where their newest ones are of these very rows.

    Images without a label of the model's classes, or without a score, count in no figure; the
    plan's facts say how many there are.

    Raises:
        BundleError: if the lake has no such bundle, it is no classifier, or its classes do not fit
            what is asked.
        LeakError: if a model learned from what it would be evaluated on.
        SplitError: if the split has no such fold.
    """
    return _plan(Question.of(spec, store), store)


def run(spec: EvaluateSpec, pool: Pool, store: Store) -> Report:
    """Compute the figures, unless they are there already."""
    with store.snapshot():
        question = Question.of(spec, store)
    return run_whole(spec, lambda: _plan(question, store), pool, store)


def identity(question: Question, rows: pa.Table) -> Mapping[str, Any]:
    """What the figures depend on: the question, the operating points and the rows."""
    columns = ("image_id", "part", "label", "group", "scored_by", *columns_asked(question))
    return question.content | {
        "operating_points": question.operating_points,
        "rows": digest_rows(rows, columns),
    }


def _plan(question: Question, store: Store) -> Plan:
    spec, found = question.spec, find_rows(question, store)
    rows = usable(found, question)
    asked = fingerprint(question.content)
    facts = question.facts | missing(found, question)
    if spec.pictures and rows.num_rows:
        facts["pictures"] = question.pictures
    whole = Whole(
        key=question.key,
        identity=identity(question, rows),
        rows=rows.drop_columns(["scored_by", "other_scored_by"]),
        params=question.params | {"target": f"{store.root}/{question.pictures}"},
        facts=facts | {_ASKED: asked},
    )
    return plan_whole(spec, whole, known=_is_evaluated(store, whole, asked))


def _is_evaluated(store: Store, whole: Whole, asked: str) -> bool:
    """Whether the newest answer to this question came from just these rows.

    Other questions about the same model and split (other parts, another seed) stand between.
    """
    newest = store.query(
        "SELECT fingerprint FROM runs WHERE kind = 'evaluate' AND key = $key "
        "AND state = 'published' AND facts ->> $fact = $asked ORDER BY recorded_at DESC LIMIT 1",
        {"key": "/".join(whole.key), "fact": _ASKED, "asked": asked},
    )
    made_by = run_fingerprint("evaluate", whole.identity)
    return bool(newest["fingerprint"].to_pylist() == [made_by])
