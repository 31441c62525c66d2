"""The kind `train_detector`: train a detector with Ray Train and put its bundle into the lake."""

from collections.abc import Mapping
from typing import Any

from jobs.batch import Training, is_trained, run_training
from jobs.learned import Start
from jobs.prepared import where_prepared
from jobs.rows import digest_rows
from jobs.train_detector.corpus import Corpus, count_groups, read_corpus
from jobs.train_detector.settings import recipe_of, training_config, training_identity
from jobs.train_detector.start import resolve_start
from schemas.bundle import BundleConfig
from schemas.plan import Counts, Plan, fingerprint
from schemas.protocols import Pool, Report, Store
from schemas.specs.train_detector import DetectorSpec


def plan(spec: DetectorSpec, store: Store) -> Plan:
    """Plan the annotated images of parts train and val, or nothing where the bundle is there.

    Images without a box are planned like any other; those the source has not looked at are left
    out and counted among the facts, unless the spec takes all.

    Raises:
        BundleError: if the bundle to start from is not there or does not fit.
        LeakError: if a patient, image or group of duplicates stands in two parts, or the bundle to
            start from learned from images to test on, unless the spec allows it.
        SplitError: if the split has no annotated images, or too few boxes, or no such fold.
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
                "backends": spec.backends,
                "data": _data(spec, corpus, start),
                "fingerprint": made_by,
            },
        },
        inputs=inputs,
        bounds=(0, inputs.num_rows) if inputs.num_rows else (),
        counts=Counts(up_to_date=rows.num_rows - inputs.num_rows),
        facts={
            "model": spec.model,
            "not annotated": corpus.unseen,
            "without a box": sum(one["without a box"] for one in corpus.counts.values()),
            **{f"leaking {name.replace('_', ' ')}": n for name, n in _leaks(corpus, start).items()},
        },
    )


def run(spec: DetectorSpec, pool: Pool, store: Store) -> Report:
    """Train, going on at the last finished epoch where an earlier driver stopped."""
    training = Training(
        plan=lambda: plan(spec, store),
        key=key(spec),
        model=spec.model,
        workers=spec.world_size,
        nightly=spec.nightly,
        facts=_facts,
    )
    return run_training(spec, training, pool, store)


def key(spec: DetectorSpec) -> tuple[str, ...]:
    """A run alone may write versions of a bundle."""
    return (spec.kind, spec.model)


def _facts(config: BundleConfig) -> dict[str, float]:
    """What the user is told of the bundle at the job's end."""
    val, training = config.metrics.get("val", {}), config.metrics.get("training", {})
    told = {
        "best epoch": training.get("best_epoch"),
        "val ap50": val.get("ap50"),
        "val macro f1": val.get("macro f1"),
        "threshold": config.detection.score_threshold if config.detection else None,
    }
    if config.backend in config.backends:
        told[f"images/s by {config.backend}"] = config.backends[config.backend].images_per_s
    return {name: value for name, value in told.items() if value is not None}


def _identity(
    spec: DetectorSpec, corpus: Corpus, start: Start, training: Mapping[str, Any]
) -> dict[str, Any]:
    columns = ("image_id", "part", "boxes", "categories", "ignored")
    return {
        "training": training_identity(training),
        "start": start.identity,
        "workers": spec.world_size,
        **corpus.folds,
        "rows": digest_rows(corpus.rows, columns),
    }


def _data(spec: DetectorSpec, corpus: Corpus, start: Start) -> dict[str, Any]:
    """What the model card says of the data."""
    told: dict[str, Any] = {
        "dataset": spec.dataset,
        "split": spec.split,
        "annotations": spec.annotations,
        **({"ignored": spec.ignored} if spec.ignored else {}),
        **({"sites": list(spec.sites)} if spec.sites else {}),
        **corpus.folds,
        "split_run": corpus.split_run,
        "groups": count_groups(corpus.rows),
        **corpus.counts,
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
