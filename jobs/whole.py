"""Jobs over all their rows at once, whose figures can't be made piece by piece: one shard."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs.batch import run_batch
from schemas.plan import Counts, Plan, run_fingerprint
from schemas.protocols import PlanFunction, Pool, Report, Store
from schemas.specs import JobSpec


@dataclass(frozen=True)
class Whole:
    """What is asked of all rows."""

    key: tuple[str, ...]
    """What the run alone may write."""
    identity: Mapping[str, Any]
    """All that the answer depends on, the rows included."""
    rows: pa.Table
    params: Mapping[str, Any]
    facts: Mapping[str, Any]


def is_answered(spec: JobSpec, whole: Whole, store: Store) -> bool:
    """Whether the last run of the key was of just these rows."""
    last = store.last_run(whole.key)
    return last is not None and last["fingerprint"] == run_fingerprint(spec.kind, whole.identity)


def plan_whole(spec: JobSpec, whole: Whole, *, known: bool) -> Plan:
    """Plan all rows as one shard, or none where the answer is ``known``."""
    count = whole.rows.num_rows
    inputs = whole.rows.slice(0, 0) if known else whole.rows
    return Plan(
        kind=spec.kind,
        name=spec.name,
        key=whole.key,
        identity=whole.identity,
        params=whole.params,
        inputs=inputs,
        bounds=(0, count) if inputs.num_rows else (),
        counts=Counts(up_to_date=count) if known else Counts(),
        facts=whole.facts,
    )


def run_whole(spec: JobSpec, plan: PlanFunction, pool: Pool, store: Store) -> Report:
    """Run a job whose identity is of the very rows it plans.

    They are read anew under the lease: another driver may have written some meanwhile.

    Raises:
        LeaseHeld: if another driver holds the plan's key.
    """
    with store.snapshot():
        planned = plan()
    return run_batch(spec, plan, pool, store, key=planned.key, identity=planned.identity)
