"""The kind `pretrain`: learn a backbone without labels and put its bundle into the lake."""

from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from jobs.batch import Training, is_trained, run_training
from jobs.learned import Start
from jobs.prepared import where_prepared
from jobs.pretrain.corpus import Corpus, read_corpus
from jobs.pretrain.settings import recipe_of, training_config, training_identity
from jobs.pretrain.start import resolve_start
from jobs.rows import digest_rows
from schemas.bundle import BundleConfig
from schemas.plan import Counts, Plan, fingerprint
from schemas.protocols import Pool, Report, Store
from schemas.specs.pretrain import PretrainSpec


def plan(spec: PretrainSpec, store: Store) -> Plan:
    """Plan all images of parts train and val, or nothing where the bundle is there.

    Raises:
        BundleError: if the bundle to start from is not there or does not fit.
        LeakError: if a patient, image or group of duplicates stands in two parts, or the bundle to
            start from learned from images to test on, unless the spec allows it.
        SplitError: if the split has no images in train or val, or no such fold.
    """
    corpus = read_corpus(spec, store)
    start = resolve_start(spec, store, corpus.folds)
    training = training_config(spec, corpus.classes)
    stated = _identity(spec, corpus, start, training)
    made_by = fingerprint(stated)
    rows = corpus.rows
    inputs = rows.slice(0, 0) if is_trained(spec.model, made_by, store) else rows
    if inputs.num_rows and spec.use_prepared:
        inputs = where_prepared(inputs, recipe_of(spec).hash, store)
    leaks = _leaks(corpus, start)
    return Plan(
        kind=spec.kind,
        name=spec.name,
        key=key(spec),
        identity=stated,
        params={
            "method": spec.kind,
            "training": training,
            "start_uri": start.uri,
            "start_id": start.bundle.get("model_id"),
            "bundle": {
                "name": spec.model,
                "data": _data(spec, corpus, start),
                "fingerprint": made_by,
            },
        },
        inputs=inputs,
        bounds=(0, inputs.num_rows) if inputs.num_rows else (),
        counts=Counts(up_to_date=rows.num_rows - inputs.num_rows),
        facts={
            "model": spec.model,
            **({} if corpus.classes or spec.probe is None else {"probe": "none, without labels"}),
            **{f"leaking {name.replace('_', ' ')}": count for name, count in leaks.items()},
        },
    )


def run(spec: PretrainSpec, pool: Pool, store: Store) -> Report:
    """Train, going on at the last finished epoch where an earlier driver stopped."""
    training = Training(
        plan=lambda: plan(spec, store),
        key=key(spec),
        model=spec.model,
        workers=spec.world_size,
        nightly=False,
        facts=_facts,
    )
    return run_training(spec, training, pool, store)


def key(spec: PretrainSpec) -> tuple[str, ...]:
    """A run alone may write versions of a bundle."""
    return (spec.kind, spec.model)


def _facts(config: BundleConfig) -> dict[str, float]:
    """What the user is told of the bundle at the job's end."""
    val, training = config.metrics.get("val", {}), config.metrics.get("training", {})
    told = {
        "kept epoch": training.get("best_epoch"),
        "loss": val.get("loss"),
        "spread": val.get("spread_at_end"),
        "WARNING, collapsed: spread below 0.5 at the end": 1 if val.get("collapsed") else None,
        "probe accuracy": val.get("probe_accuracy"),
        "probe accuracy of random weights": val.get("probe_random_accuracy"),
    }
    if "gain_accuracy 95%" in val:
        told["gain"] = val["gain_accuracy"]
        told["gain 95 % low"], told["gain 95 % high"] = val["gain_accuracy 95%"]
    return {name: value for name, value in told.items() if value is not None}


def _identity(
    spec: PretrainSpec, corpus: Corpus, start: Start, training: Mapping[str, Any]
) -> dict[str, Any]:
    # Weights depend on no label, but the probe's figures do, which the bundle holds too.
    columns = ("image_id", "part", *(("label",) if training["probe"] else ()))
    return {
        "training": training_identity(training),
        "start": start.identity,
        "workers": spec.world_size,
        **corpus.folds,
        "rows": digest_rows(corpus.rows, columns),
    }


def _data(spec: PretrainSpec, corpus: Corpus, start: Start) -> dict[str, Any]:
    """What the model card says of the data."""
    told: dict[str, Any] = {
        "dataset": spec.dataset,
        "split": spec.split,
        **({"sites": list(spec.sites)} if spec.sites else {}),
        **corpus.folds,
        "split_run": corpus.split_run,
        "groups": pc.count_distinct(corpus.rows["group"]).as_py(),
        **corpus.counts(),
        "start": dict(start.told),
    }
    leaks = _leaks(corpus, start)
    if leaks:
        told["leaks_allowed"] = leaks
    return told


def _leaks(corpus: Corpus, start: Start) -> dict[str, int]:
    """What leaks where it is allowed to, counted."""
    found = corpus.leaks | ({"test_images_the_start_met": start.leaks} if start.leaks else {})
    return {name: count for name, count in found.items() if count}
