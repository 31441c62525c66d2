"""The shape of every run: lease, resume or plan, shards, finishing step, commit."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from schemas.plan import Plan, run_fingerprint, shard_bounds
from schemas.protocols import PlanFunction, Pool, Report, Run, Store, Verdict
from schemas.specs import JobSpec
from schemas.specs.base import Execution

Judge = Callable[[Run], Verdict]
"""Says of a run whose shards are done whether it may become visible."""


@dataclass(frozen=True)
class Batch:
    """What a run is about."""

    plan: PlanFunction
    key: tuple[str, ...]
    """What the run alone may write."""
    identity: Mapping[str, Any]
    """All that its result depends on beside the inputs."""
    judge: Judge | None = None
    """Says whether the run becomes visible; every run does without one."""


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
    return run_judged(spec, Batch(plan, key, identity), pool, store)


def run_judged(spec: JobSpec, batch: Batch, pool: Pool, store: Store) -> Report:
    """Like `run_batch`; the rows of a run that its judge holds are staged and stay out of sight.

    Raises:
        LeaseHeld: if another driver holds the batch's key.
    """
    started = time.perf_counter()
    with store.lease(batch.key):
        run = store.unfinished(batch.key, run_fingerprint(spec.kind, batch.identity))
        if run is None:
            with store.snapshot():
                planned = batch.plan()
            if not planned.inputs.num_rows:
                return nothing_new(spec, planned, started)
            run = store.begin(planned, spec.model_dump(mode="json"))
        seconds = {"plan": time.perf_counter() - started}
        before = time.perf_counter()
        pool.run_shards(run, spec.execution)
        seconds["shards"] = time.perf_counter() - before
        before = time.perf_counter()
        pool.finish(run)
        seconds["finish"] = time.perf_counter() - before
        verdict = None
        if batch.judge is not None:
            before = time.perf_counter()
            verdict = batch.judge(run)
            seconds["gate"] = time.perf_counter() - before
        report = store.commit(run, seconds, verdict)
        return replace(report, name=job_name(spec), resumed=run.resumed)


def job_name(spec: JobSpec) -> str:
    """The job's name; a run that is resumed may have begun under another."""
    return spec.name or spec.kind


def nothing_new(spec: JobSpec, planned: Plan, started: float) -> Report:
    """The report of a job that has nothing to do; ``started`` is by `time.perf_counter`."""
    return Report(
        kind=spec.kind,
        name=job_name(spec),
        status="up_to_date",
        counts=planned.counts,
        unit=planned.unit,
        seconds={"plan": time.perf_counter() - started},
        facts=planned.facts,
    )


def bounds_by_bytes(inputs: pa.Table, execution: Execution) -> tuple[int, ...]:
    """Bounds of shards of a plan's inputs, by their column ``bytes``."""
    return shard_bounds(
        inputs["bytes"].to_pylist(),
        images=execution.shard_images,
        max_bytes=execution.shard_bytes,
    )
