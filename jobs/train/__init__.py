"""The kind `train`: train a classifier with Ray Train and put its bundle into the lake."""

import hashlib
import json
import time
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc

from jobs.prepared import where_prepared
from jobs.rows import digest_rows
from jobs.train.corpus import Corpus, read_corpus
from jobs.train.settings import training_config
from schemas.bundle import OUTCOME_FILE, BundleConfig, parse_config
from schemas.plan import Counts, Plan, ShardResult, fingerprint
from schemas.protocols import Pool, Report, Run, Store
from schemas.specs.train import TrainSpec
from schemas.tables import rows_of
from workers.pixels.steps import Recipe


def plan(spec: TrainSpec, store: Store) -> Plan:
    """Plan the labelled images of parts train and val, or nothing where the bundle is there.

    Images without a label, with labels that contradict each other, or with a label that is none
    of the classes are left out; the plan's facts count them.

    Raises:
        LeakError: if a patient, image or group of duplicates stands in two parts, unless the spec
            allows it.
        SplitError: if the split has no images, or a class has none in train or val, or the split
            has no such fold.
        UsageError: if the spec's classes don't fit each other.
    """
    corpus = read_corpus(spec, store)
    rows, stated = corpus.rows, _identity(spec, store, corpus)
    made_by = fingerprint(stated)
    inputs = rows.slice(0, 0) if _trained(spec, store, made_by) else rows
    if inputs.num_rows and spec.use_prepared:
        recipe = Recipe.from_dict(stated["training"]["recipe"])
        inputs = where_prepared(inputs, recipe.hash, store)
    return Plan(
        kind=spec.kind,
        name=spec.name,
        key=key(spec),
        identity=stated,
        params={
            "training": stated["training"],
            "start_uri": spec.start if _is_checkpoint(spec) else None,
            "bundle": {
                "name": spec.model,
                "positive": _positive(spec, corpus.classes),
                "rule": spec.threshold_rule,
                "data": _data(spec, corpus),
                "fingerprint": made_by,
            },
        },
        inputs=inputs,
        bounds=(0, inputs.num_rows) if inputs.num_rows else (),
        counts=Counts(up_to_date=rows.num_rows - inputs.num_rows),
        facts={
            "model": spec.model,
            "contradicting labels": corpus.contradicting,
            "without a label": corpus.unlabelled,
            **{f"leaking {name.replace('_', ' ')}": n for name, n in corpus.leaks.items() if n},
        },
    )


def run(spec: TrainSpec, pool: Pool, store: Store) -> Report:
    """Train, going on at the last finished epoch where an earlier driver stopped."""
    started = time.perf_counter()
    with store.lease(key(spec)):
        with store.snapshot():
            planned = plan(spec, store)
        # Asked also where there is nothing to do: it takes the mark of a driver away that died
        # right after its commit.
        owned = store.unfinished(planned.key, planned.fingerprint)
        seconds = {"plan": time.perf_counter() - started}
        if owned is None and not planned.inputs.num_rows:
            return Report(
                kind=spec.kind,
                name=spec.name,
                status="up_to_date",
                counts=planned.counts,
                seconds=seconds,
                facts=planned.facts,
            )
        current = owned or store.begin(planned, spec.model_dump(mode="json"))
        for shard in current.pending():
            before = time.perf_counter()
            current.record(shard, _train(spec, current, pool, store))
            seconds["train"] = time.perf_counter() - before
        return store.commit(current, seconds)


def key(spec: TrainSpec) -> tuple[str, ...]:
    """A run alone may write versions of a bundle."""
    return (spec.kind, spec.model)


def _train(spec: TrainSpec, current: Run, pool: Pool, store: Store) -> ShardResult:
    files = dict(pool.train(current, current.plan.params, spec.world_size))
    outcome = json.loads(files.pop(OUTCOME_FILE))
    version, uri = store.put_bundle(current, spec.model, files)
    # A resumed run finds the bundle it wrote before: what lies there counts, not what was redone.
    config = parse_config(store.read_source(f"{uri}/config.json"), uri)
    rejects = rows_of("rejects", outcome["rejects"])
    tables = {
        "models": rows_of("models", [model_row(config, version, nightly=spec.nightly)]),
        "rejects": rejects,
    }
    done = current.plan.inputs.num_rows - rejects.num_rows
    return ShardResult(tables, done=done, rejected=rejects.num_rows, facts=_facts(config))


def _facts(config: BundleConfig) -> dict[str, float]:
    """What the user is told of the bundle at the job's end."""
    val, training = config.metrics.get("val", {}), config.metrics.get("training", {})
    told = {
        "best epoch": training.get("best_epoch"),
        "val auc": val.get("auc"),
        "val accuracy": val.get("accuracy"),
    }
    if config.backend in config.backends:
        told[f"images/s by {config.backend}"] = config.backends[config.backend].images_per_s
    return {name: value for name, value in told.items() if value is not None}


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
        "data": json.dumps(config.data),
        "fingerprint": config.fingerprint,
        "created_at": datetime.now(UTC),
    }


def _identity(spec: TrainSpec, store: Store, corpus: Corpus) -> dict[str, Any]:
    start = None
    if _is_checkpoint(spec):
        weights = store.read_source(spec.start)
        start = hashlib.blake2b(weights, digest_size=16).hexdigest()
    return {
        "training": training_config(spec, corpus.classes),
        "start": start,
        "positive": _positive(spec, corpus.classes),
        "rule": spec.threshold_rule,
        "workers": spec.world_size,
        "rows": digest_rows(corpus.rows, ("image_id", "part", "label")),
        **corpus.folds,
    }


def _positive(spec: TrainSpec, classes: tuple[str, ...]) -> str | None:
    return (spec.positive or classes[-1]) if len(classes) == 2 else None


def _data(spec: TrainSpec, corpus: Corpus) -> dict[str, Any]:
    """What the model card says of the data."""
    told: dict[str, Any] = {
        "dataset": spec.dataset,
        "split": spec.split,
        **corpus.folds,
        "split_run": corpus.split_run,
        "groups": pc.count_distinct(corpus.rows["group"]).as_py(),
        **corpus.label_counts(),
    }
    if any(corpus.leaks.values()):
        told["leaks_allowed"] = corpus.leaks
    return told


def _is_checkpoint(spec: TrainSpec) -> bool:
    return spec.start not in ("none", "pretrained")


def _trained(spec: TrainSpec, store: Store, made_by: str) -> bool:
    """Whether the newest version of the bundle came from just this."""
    newest = store.query(
        "SELECT fingerprint FROM models WHERE name = $name ORDER BY version DESC LIMIT 1",
        {"name": spec.model},
    )
    return bool(newest["fingerprint"].to_pylist() == [made_by])
