"""The kind `evaluate`: compare predictions with labels, part by part."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from jobs.batch import run_batch
from jobs.evaluate.asking import Question
from jobs.evaluate.finding import columns_asked, find_rows, missing, usable
from jobs.rows import digest_rows
from schemas.plan import Counts, Plan, fingerprint, run_fingerprint
from schemas.protocols import Pool, Report, Store
from schemas.specs.evaluate import EvaluateSpec

_ASKED = "_asked"
"""The fact under which a run notes a hash of its question."""


def plan(spec: EvaluateSpec, store: Store) -> Plan:
    """Plan the figures of every part, or nothing where their newest ones are of these very rows.

    Images without a label of the model's classes, or without a score, count in no figure; the
    plan's facts say how many there are.

    Raises:
        BundleError: if the lake has no such bundle, or its classes do not fit what is asked.
        LeakError: if a model learned from what it would be evaluated on.
        SplitError: if the split has no such fold.
    """
    question = Question.of(spec, store)
    return _plan(question, store, find_rows(question, store))


def run(spec: EvaluateSpec, pool: Pool, store: Store) -> Report:
    """Compute the figures, unless they are there already."""
    with store.snapshot():
        question = Question.of(spec, store)
        stated = identity(question, usable(find_rows(question, store), question))
    return run_batch(
        spec,
        # Read anew under the lease: another driver may have scored or split meanwhile.
        lambda: _plan(question, store, find_rows(question, store)),
        pool,
        store,
        key=question.key,
        identity=stated,
    )


def identity(question: Question, rows: pa.Table) -> Mapping[str, Any]:
    """What the figures depend on: the question, the operating points and the rows."""
    columns = ("image_id", "part", "label", "group", "scored_by", *columns_asked(question))
    return question.content | {
        "operating_points": question.operating_points,
        "rows": digest_rows(rows, columns),
    }


def _plan(question: Question, store: Store, found: pa.Table) -> Plan:
    spec, rows = question.spec, usable(found, question)
    stated = identity(question, rows)
    inputs = rows.drop_columns(["scored_by", "other_scored_by"])
    asked = fingerprint(question.content)
    if _evaluated(store, question.key, asked, run_fingerprint(spec.kind, stated)):
        counts, inputs = Counts(up_to_date=rows.num_rows), inputs.slice(0, 0)
    else:
        counts = Counts()
    facts = question.facts | missing(found, question)
    if spec.pictures and rows.num_rows:
        facts["pictures"] = question.pictures
    return Plan(
        kind=spec.kind,
        name=spec.name,
        key=question.key,
        identity=stated,
        params=question.params | {"target": f"{store.root}/{question.pictures}"},
        inputs=inputs,
        # One shard: a resampled figure needs all images at once.
        bounds=(0, inputs.num_rows) if inputs.num_rows else (),
        counts=counts,
        facts=facts | {_ASKED: asked},
    )


def _evaluated(store: Store, owned: tuple[str, ...], asked: str, made_by: str) -> bool:
    """Whether the newest answer to this question came from just these rows.

    Other questions about the same model and split (other parts, another seed) stand between.
    """
    newest = store.query(
        "SELECT fingerprint FROM runs WHERE kind = 'evaluate' AND key = $key "
        "AND state = 'published' AND facts ->> $fact = $asked ORDER BY recorded_at DESC LIMIT 1",
        {"key": "/".join(owned), "fact": _ASKED, "asked": asked},
    )
    return bool(newest["fingerprint"].to_pylist() == [made_by])
