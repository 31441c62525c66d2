"""The shape of every run: lease, resume or plan, shards, finishing step, commit."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from schemas.bundle import OUTCOME_FILE, WEIGHTS_FILE, BundleConfig, parse_config
from schemas.plan import Plan, ShardResult, run_fingerprint
from schemas.protocols import PlanFunction, Pool, Report, Run, Store, Verdict
from schemas.specs import JobSpec
from schemas.tables import rows_of
from workers.pixels.steps import Recipe

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
                return _nothing_new(spec, planned, started)
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
        return replace(report, name=_name(spec), resumed=run.resumed)


def _name(spec: JobSpec) -> str:
    """The job's name; a run that is resumed may have begun under another."""
    return spec.name or spec.kind


def _nothing_new(spec: JobSpec, planned: Plan, started: float) -> Report:
    return Report(
        kind=spec.kind,
        name=_name(spec),
        status="up_to_date",
        counts=planned.counts,
        unit=planned.unit,
        seconds={"plan": time.perf_counter() - started},
        facts=planned.facts,
    )


@dataclass(frozen=True)
class Training:
    """What a run that makes one bundle is about."""

    plan: PlanFunction
    key: tuple[str, ...]
    """What the run alone may write."""
    model: str
    """Name of the bundle."""
    workers: int
    """Processes that train together."""
    nightly: bool
    """Whether the bundle is marked for nights."""
    facts: Callable[[BundleConfig], Mapping[str, float]]
    """What the user is told of the bundle at the job's end."""


def run_training(spec: JobSpec, training: Training, pool: Pool, store: Store) -> Report:
    """Make a bundle, going on at the last finished epoch where an earlier driver stopped."""
    started = time.perf_counter()
    with store.lease(training.key):
        with store.snapshot():
            planned = training.plan()
        # Asked also where there is nothing to do: it takes the mark of a driver away that died
        # right after its commit.
        owned = store.unfinished(planned.key, planned.fingerprint)
        if owned is None and not planned.inputs.num_rows:
            return _nothing_new(spec, planned, started)
        seconds = {"plan": time.perf_counter() - started}
        current = owned or store.begin(planned, spec.model_dump(mode="json"))
        for shard in current.pending():
            before = time.perf_counter()
            current.record(shard, _train(training, current, pool, store))
            seconds["train"] = time.perf_counter() - before
        return replace(store.commit(current, seconds), name=_name(spec))


def _train(training: Training, current: Run, pool: Pool, store: Store) -> ShardResult:
    files = dict(pool.train(current, current.plan.params, training.workers))
    outcome = json.loads(files.pop(OUTCOME_FILE))
    version, uri = store.put_bundle(current, training.model, files)
    # A resumed run finds the bundle it wrote before: what lies there counts, not what was redone.
    config = parse_config(store.read_source(f"{uri}/config.json"), uri)
    rejects = rows_of("rejects", outcome["rejects"])
    tables = {
        "models": rows_of("models", [model_row(config, version, nightly=training.nightly)]),
        "rejects": rejects,
    }
    done = current.plan.inputs.num_rows - rejects.num_rows
    return ShardResult(
        tables, done=done, rejected=rejects.num_rows, facts=dict(training.facts(config))
    )


def model_row(config: BundleConfig, version: int, *, nightly: bool) -> dict[str, object]:
    """The row of `models` that names a bundle."""
    point = config.operating_point
    return {
        "model_id": config.model_id,
        "name": config.name,
        "version": version,
        "family": config.family,
        "architecture": config.architecture,
        "recipe": Recipe.from_dict(config.preprocessing.recipe).hash,
        "classes": list(config.classes),
        "operating_point": point.model_dump_json() if point else None,
        "calibration": config.calibration.model_dump_json(),
        "nightly": nightly,
        "metrics": json.dumps(config.metrics.get("val", {})),
        # The weights' hash tells a checkpoint that is a copy of them.
        "data": json.dumps({**config.data, **_weights(config)}),
        "fingerprint": config.fingerprint,
        "created_at": datetime.now(UTC),
    }


def _weights(config: BundleConfig) -> dict[str, str]:
    found = config.files.get(WEIGHTS_FILE)
    return {} if found is None else {"weights": found}


def is_trained(model: str, made_by: str, store: Store) -> bool:
    """Whether the newest version of a bundle came from just this fingerprint."""
    newest = store.query(
        "SELECT fingerprint FROM models WHERE name = $name ORDER BY version DESC LIMIT 1",
        {"name": model},
    )
    return bool(newest["fingerprint"].to_pylist() == [made_by])
