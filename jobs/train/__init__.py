"""The kind `train`: train a classifier with Ray Train and put its bundle into the lake."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow.compute as pc

from jobs.batch import Training, is_trained, run_training
from jobs.learned import Start
from jobs.prepared import where_prepared
from jobs.rows import digest_rows
from jobs.train.corpus import Corpus, read_corpus
from jobs.train.features import svm_config, svm_identity, with_features
from jobs.train.settings import training_config, training_identity
from jobs.train.start import resolve_start
from schemas.bundle import BundleConfig
from schemas.plan import Counts, Plan, fingerprint
from schemas.protocols import Pool, Report, Store
from schemas.specs.train import TrainSpec
from workers.pixels.steps import Recipe


def plan(spec: TrainSpec, store: Store) -> Plan:
    """Plan the labelled images of parts train and val, or nothing where the bundle is there.

    Images without a label, with labels that contradict each other, or with a label that is none
    of the classes are left out; the plan's facts count them.

    Raises:
        BundleError: if the bundle to start from is not there or does not fit, or has no features
            of the images for the head svm.
        LeakError: if a patient, image or group of duplicates stands in two parts, or the bundle to
            start from learned from images to test on, unless the spec allows it.
        SplitError: if the split has no images, or a class has none in train or val, or the split
            has no such fold.
        UsageError: if the spec's classes don't fit each other.
    """
    whole = read_corpus(spec, store)
    start = resolve_start(spec, store, whole.folds)
    corpus = whole
    if spec.head == "svm":
        corpus = replace(whole, rows=with_features(spec, store, start, whole.rows))
    rows, stated = corpus.rows, _identity(spec, corpus, start)
    made_by = fingerprint(stated)
    inputs = rows.slice(0, 0) if is_trained(spec.model, made_by, store) else rows
    if inputs.num_rows and spec.use_prepared:
        inputs = where_prepared(inputs, _recipe(spec, start), store)
    return Plan(
        kind=spec.kind,
        name=spec.name,
        key=key(spec),
        identity=stated,
        params={
            **_method(spec, corpus, start),
            "start_uri": start.uri,
            "start_id": start.bundle.get("model_id"),
            **_elastic(spec),
            "bundle": {
                "name": spec.model,
                "positive": _positive(spec, corpus.classes),
                "rule": spec.threshold_rule,
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
            "contradicting labels": corpus.contradicting,
            "without a label": corpus.unlabelled,
            **_left_out(whole.rows.num_rows - rows.num_rows),
            **_told_leaks(_leaks(whole, start)),
        },
    )


def run(spec: TrainSpec, pool: Pool, store: Store) -> Report:
    """Train, going on at the last finished epoch where an earlier driver stopped."""
    training = Training(
        plan=lambda: plan(spec, store),
        key=key(spec),
        model=spec.model,
        workers=1 if spec.head == "svm" else spec.world_size,
        nightly=spec.nightly,
        facts=_facts,
    )
    return run_training(spec, training, pool, store)


def key(spec: TrainSpec) -> tuple[str, ...]:
    """A run alone may write versions of a bundle."""
    return (spec.kind, spec.model)


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


def _identity(spec: TrainSpec, corpus: Corpus, start: Start) -> dict[str, Any]:
    method = _method(spec, corpus, start)
    common = {
        **(
            {"svm": svm_identity(method["svm"])}
            if spec.head == "svm"
            else {"training": training_identity(method["training"])}
        ),
        "start": start.identity,
        "positive": _positive(spec, corpus.classes),
        "rule": spec.threshold_rule,
        **corpus.folds,
    }
    columns = ("image_id", "part", "label")
    if spec.head == "svm":  # its probabilities are fitted on patients held out
        return common | {"rows": digest_rows(corpus.rows, (*columns, "group"))}
    workers = {"workers": spec.world_size, **_elastic(spec)}
    return common | workers | {"rows": digest_rows(corpus.rows, columns)}


def _elastic(spec: TrainSpec) -> dict[str, int]:
    """The least number of workers, where it differs from the wanted one."""
    return {} if spec.min_world_size is None else {"min_workers": spec.min_world_size}


def _method(spec: TrainSpec, corpus: Corpus, start: Start) -> dict[str, Any]:
    """How the model is fitted, under the name of who fits it."""
    if spec.head == "svm":
        return {"svm": svm_config(spec, corpus.classes)}
    other = start.bundle and tuple(start.bundle["classes"]) != corpus.classes
    return {"training": training_config(spec, corpus.classes) | {"new_head": bool(other)}}


def _recipe(spec: TrainSpec, start: Start) -> str:
    """The hash of the recipe that makes the pixels."""
    if spec.head == "svm":
        return str(start.bundle["recipe"])
    return Recipe.from_dict(spec.preprocess.model_dump(mode="json")).hash


def _told_leaks(leaks: Mapping[str, int]) -> dict[str, int]:
    return {f"leaking {name.replace('_', ' ')}": n for name, n in leaks.items() if n}


def _left_out(images: int) -> dict[str, int]:
    return {"without features": images} if images else {}


def _positive(spec: TrainSpec, classes: tuple[str, ...]) -> str | None:
    return (spec.positive or classes[-1]) if len(classes) == 2 else None


def _data(spec: TrainSpec, corpus: Corpus, start: Start) -> dict[str, Any]:
    """What the model card says of the data."""
    told: dict[str, Any] = {
        "dataset": spec.dataset,
        "split": spec.split,
        **({"sites": list(spec.sites)} if spec.sites else {}),
        **corpus.folds,
        "split_run": corpus.split_run,
        "groups": pc.count_distinct(corpus.rows["group"]).as_py(),
        **corpus.label_counts(),
        "start": dict(start.told),
    }
    if spec.head == "svm":
        told["head"] = spec.head
    leaks = _leaks(corpus, start)
    if any(leaks.values()):
        told["leaks_allowed"] = leaks
    return told


def _leaks(corpus: Corpus, start: Start) -> dict[str, int]:
    """What leaks where it is allowed to, counted."""
    return corpus.leaks | ({"test_images_the_start_met": start.leaks} if start.leaks else {})
