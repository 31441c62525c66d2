"""The shape of every run: lease, resume or plan, shards, finishing step, commit."""

import time
from collections.abc import Mapping
from typing import Any

from schemas.plan import Plan, run_fingerprint
from schemas.protocols import PlanFunction, Pool, Report, Store
from schemas.specs import JobSpec


def run_batch(
    spec: JobSpec,
    plan: PlanFunction,
    pool: Pool,
    store: Store,
    *,
    key: tuple[str, ...],
    identity: Mapping[str, Any],
) -> Report:
    """Run a job exactly once, going on where an earlier driver stopped.

    ``plan`` is called under the lease, so that no two drivers plan the same work. A plan without
    inputs ends here and leaves no run behind.

    Raises:
        LeaseHeld: if another driver holds ``key``.
    """
    started = time.perf_counter()
    with store.lease(key):
        run = store.unfinished(key, run_fingerprint(spec.kind, identity))
        if run is None:
            with store.snapshot():
                planned = plan()
            if not planned.inputs.num_rows:
                return _nothing_new(spec, planned, started)
            run = store.begin(planned, spec.model_dump(mode="json"))
        seconds = {"plan": time.perf_counter() - started}
        before = time.perf_counter()
        pool.run_shards(run, spec.execution)
        seconds["shards"] = time.perf_counter() - before
        before = time.perf_counter()
        pool.finish(run)
        seconds["finish"] = time.perf_counter() - before
        return store.commit(run, seconds)


def _nothing_new(spec: JobSpec, planned: Plan, started: float) -> Report:
    return Report(
        kind=spec.kind,
        name=spec.name or spec.kind,
        status="up_to_date",
        counts=planned.counts,
        unit=planned.unit,
        seconds={"plan": time.perf_counter() - started},
        facts=planned.facts,
    )
