"""What the kinds that train share: their plan, their run, and what they tell of a bundle."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.batch import job_name, nothing_new
from jobs.bundles import is_trained, model_row
from jobs.corpora import Placed
from jobs.prepared import where_prepared
from jobs.starting import Start
from schemas.bundle import CONFIG_FILE, OUTCOME_FILE, BundleConfig, parse_config
from schemas.plan import Counts, Plan, ShardResult, fingerprint
from schemas.protocols import PlanFunction, Pool, Report, Run, Store
from schemas.specs.pretrain import PretrainSpec
from schemas.specs.train import TrainSpec
from schemas.specs.train_detector import DetectorSpec
from schemas.tables import rows_of

TrainingSpec = TrainSpec | DetectorSpec | PretrainSpec
"""A job that makes one bundle."""


@dataclass(frozen=True)
class Lesson:
    """What a bundle is to be made of."""

    rows: pa.Table
    """The images to learn from and to validate on, with a column ``group``."""
    placed: Placed
    start: Start
    recipe: str
    """Hash of the recipe that makes the pixels."""
    method: Mapping[str, Any]
    """How the network is fitted: parameters of the work."""
    identity: Mapping[str, Any]
    """What the result depends on beside start and folds."""
    counts: Mapping[str, Any]
    """Images by part, for the model card."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """What the model card says of the data beside that."""
    bundle: Mapping[str, Any] = field(default_factory=dict)
    """What the bundle is to say beside its name, data and fingerprint."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the user is told at planning."""


def plan_training(spec: TrainingSpec, lesson: Lesson, store: Store) -> Plan:
    """Plan the images of a lesson, or nothing where its bundle is there."""
    rows, start = lesson.rows, lesson.start
    stated = {**lesson.identity, "start": start.identity, **lesson.placed.folds}
    made_by = fingerprint(stated)
    inputs = rows.slice(0, 0) if is_trained(spec.model, made_by, store) else rows
    if inputs.num_rows and spec.use_prepared:
        inputs = where_prepared(inputs, lesson.recipe, store)
    leaks = _leaks(lesson)
    told = {f"leaking {name.replace('_', ' ')}": count for name, count in leaks.items() if count}
    return Plan(
        kind=spec.kind,
        name=spec.name,
        key=bundle_key(spec),
        identity=stated,
        params={
            **lesson.method,
            "start_uri": start.uri,
            "start_id": start.bundle.get("model_id"),
            "bundle": {
                "name": spec.model,
                **lesson.bundle,
                "data": _data(spec, lesson),
                "fingerprint": made_by,
            },
        },
        inputs=inputs,
        bounds=(0, inputs.num_rows) if inputs.num_rows else (),
        counts=Counts(up_to_date=rows.num_rows - inputs.num_rows),
        facts={"model": spec.model, **lesson.facts, **told},
    )


def bundle_key(spec: TrainingSpec) -> tuple[str, ...]:
    """A run alone may write versions of a bundle."""
    return (spec.kind, spec.model)


def _data(spec: TrainingSpec, lesson: Lesson) -> dict[str, Any]:
    """What the model card says of the data."""
    told: dict[str, Any] = {
        "dataset": spec.dataset,
        "split": spec.split,
        **lesson.source,
        **({"sites": list(spec.sites)} if spec.sites else {}),
        **lesson.placed.folds,
        "split_run": lesson.placed.split_run,
        "groups": pc.count_distinct(lesson.rows["group"]).as_py(),
        **lesson.counts,
        "start": dict(lesson.start.told),
    }
    leaks = _leaks(lesson)
    if any(leaks.values()):
        told["leaks_allowed"] = leaks
    return told


def _leaks(lesson: Lesson) -> dict[str, int]:
    """What leaks where it is allowed to, counted."""
    met = lesson.start.leaks
    return {**lesson.placed.leaks, **({"test_images_the_start_met": met} if met else {})}


@dataclass(frozen=True)
class Training:
    """What a run that makes one bundle is about."""

    plan: PlanFunction
    workers: int
    """Processes that train together."""
    nightly: bool
    """Whether the bundle is marked for nights."""
    facts: Callable[[BundleConfig], Mapping[str, float]]
    """What the user is told of the bundle at the job's end."""


def run_training(spec: TrainingSpec, training: Training, pool: Pool, store: Store) -> Report:
    """Make a bundle, going on at the last finished epoch where an earlier driver stopped.

    Raises:
        LeaseHeld: if another driver makes a version of the bundle.
    """
    started = time.perf_counter()
    with store.lease(bundle_key(spec)):
        with store.snapshot():
            planned = training.plan()
        # Asked also where there is nothing to do: it takes the mark of a driver away that died
        # right after its commit.
        owned = store.unfinished(planned.key, planned.fingerprint)
        if owned is None and not planned.inputs.num_rows:
            return nothing_new(spec, planned, started)
        seconds = {"plan": time.perf_counter() - started}
        current = owned or store.begin(planned, spec.model_dump(mode="json"))
        for shard in current.pending():
            before = time.perf_counter()
            current.record(shard, _train(spec.model, training, current, pool, store))
            seconds["train"] = time.perf_counter() - before
        return replace(store.commit(current, seconds), name=job_name(spec))


def _train(model: str, training: Training, current: Run, pool: Pool, store: Store) -> ShardResult:
    files = dict(pool.train(current, current.plan.params, training.workers))
    outcome = json.loads(files.pop(OUTCOME_FILE))
    version, uri = store.put_bundle(current, model, files)
    # A resumed run finds the bundle it wrote before: what lies there counts, not what was redone.
    config = parse_config(store.read_source(f"{uri}/{CONFIG_FILE}"), uri)
    rejects = rows_of("rejects", outcome["rejects"])
    tables = {
        "models": rows_of("models", [model_row(config, version, nightly=training.nightly)]),
        "rejects": rejects,
    }
    done = current.plan.inputs.num_rows - rejects.num_rows
    return ShardResult(
        tables, done=done, rejected=rejects.num_rows, facts=dict(training.facts(config))
    )


def told_of(config: BundleConfig, figures: Mapping[str, float | None]) -> dict[str, float]:
    """The best epoch, those ``figures`` that there are, and the speed of the chosen backend."""
    told = {"best epoch": config.metrics.get("training", {}).get("best_epoch"), **figures}
    if config.backend in config.backends:
        told[f"images/s by {config.backend}"] = config.backends[config.backend].images_per_s
    return {name: value for name, value in told.items() if value is not None}
