"""The kind `train`: train a classifier with Ray Train and put its bundle into the lake."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jobs.rows import digest_rows
from jobs.settings import recipe_of
from jobs.starting import Start
from jobs.train.corpus import Corpus, read_corpus
from jobs.train.features import svm_config, svm_identity, with_features
from jobs.train.settings import training_config, training_identity
from jobs.train.start import resolve_start
from jobs.training import Lesson, Training, plan_training, run_training, told_of
from schemas.bundle import BundleConfig
from schemas.plan import Plan
from schemas.protocols import Pool, Report, Store
from schemas.specs.train import TrainSpec


def plan(spec: TrainSpec, store: Store) -> Plan:
    """Plan the labelled images of parts train and val, or nothing where the bundle is there.

    Images without a label, with labels that contradict each other, or with a label that is none
    of the classes are left out; the plan's facts count them.

    Raises:
        BundleError: if the bundle to start from is not there or does not fit, or has no features
            of the images for the head svm.
        LeakError: if a patient or group of duplicates stands in two parts, or the bundle to
            start from learned from images to test on, unless the spec allows it.
        SplitError: if the split has no images, or a class has none in train or val, or the split
            has no such fold.
        UsageError: if the spec's classes don't fit each other.
    """
    whole = read_corpus(spec, store)
    start = resolve_start(spec, store, whole.placed.folds)
    corpus = whole
    if spec.head == "svm":
        corpus = replace(whole, rows=with_features(spec, store, start, whole.rows))
    method = _method(spec, corpus, start)
    lesson = Lesson(
        rows=corpus.rows,
        placed=corpus.placed,
        start=start,
        recipe=_recipe(spec, start),
        method=method | _elastic(spec),
        identity=_identity(spec, corpus, method),
        counts=corpus.label_counts(),
        source={"head": spec.head} if spec.head == "svm" else {},
        bundle={
            "positive": _positive(spec, corpus.classes),
            "rule": spec.threshold_rule,
            "backends": spec.backends,
        },
        facts={
            "contradicting labels": corpus.contradicting,
            "without a label": corpus.unlabelled,
            **_left_out(whole.rows.num_rows - corpus.rows.num_rows),
        },
    )
    return plan_training(spec, lesson, store)


def run(spec: TrainSpec, pool: Pool, store: Store) -> Report:
    """Train, going on at the last finished epoch where an earlier driver stopped."""
    training = Training(
        plan=lambda: plan(spec, store),
        workers=1 if spec.head == "svm" else spec.world_size,
        nightly=spec.nightly,
        facts=_facts,
    )
    return run_training(spec, training, pool, store)


def _facts(config: BundleConfig) -> dict[str, float]:
    """What the user is told of the bundle at the job's end."""
    val = config.metrics.get("val", {})
    return told_of(config, {"val auc": val.get("auc"), "val accuracy": val.get("accuracy")})


def _identity(spec: TrainSpec, corpus: Corpus, method: Mapping[str, Any]) -> dict[str, Any]:
    common = {
        **(
            {"svm": svm_identity(method["svm"])}
            if spec.head == "svm"
            else {"training": training_identity(method["training"])}
        ),
        "positive": _positive(spec, corpus.classes),
        "rule": spec.threshold_rule,
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
    return recipe_of(spec.preprocess).hash


def _left_out(images: int) -> dict[str, int]:
    return {"without features": images} if images else {}


def _positive(spec: TrainSpec, classes: tuple[str, ...]) -> str | None:
    return (spec.positive or classes[-1]) if len(classes) == 2 else None
