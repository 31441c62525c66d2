"""The kind `train_detector`: train a detector with Ray Train and put its bundle into the lake."""

from jobs.rows import digest_rows
from jobs.settings import recipe_of
from jobs.train_detector.corpus import read_corpus
from jobs.train_detector.settings import training_config, training_identity
from jobs.train_detector.start import resolve_start
from jobs.training import Lesson, Training, plan_training, run_training, told_of
from schemas.bundle import BundleConfig
from schemas.plan import Plan
from schemas.protocols import Pool, Report, Store
from schemas.specs.train_detector import DetectorSpec

_COLUMNS = ("image_id", "part", "boxes", "categories", "ignored")
"""Of the rows, what the training depends on."""


def plan(spec: DetectorSpec, store: Store) -> Plan:
    """Plan the annotated images of parts train and val, or nothing where the bundle is there.

    Images without a box are planned like any other; those the source has not looked at are left
    out and counted among the facts, unless the spec takes all; those whose annotation was rejected
    are left out and counted either way.

    Raises:
        BundleError: if the bundle to start from is not there or does not fit.
        LeakError: if a patient or group of duplicates stands in two parts, or the bundle to
            start from learned from images to test on, unless the spec allows it.
        SplitError: if the split has no annotated images, or too few boxes, or no such fold.
    """
    corpus = read_corpus(spec, store)
    start = resolve_start(spec, store, corpus.placed.folds)
    training = training_config(spec, corpus.classes)
    lesson = Lesson(
        rows=corpus.rows,
        placed=corpus.placed,
        start=start,
        recipe=recipe_of(spec.preprocess).hash,
        method={"method": spec.kind, "training": training},
        identity={
            "training": training_identity(training),
            "workers": spec.world_size,
            "rows": digest_rows(corpus.rows, _COLUMNS),
        },
        counts={part: counted.told() for part, counted in corpus.counts.items()},
        source={
            "annotations": spec.annotations,
            **({"ignored": spec.ignored} if spec.ignored else {}),
        },
        bundle={"backends": spec.backends},
        facts={
            **corpus.left_out,
            "without a box": sum(one.without_a_box for one in corpus.counts.values()),
        },
    )
    return plan_training(spec, lesson, store)


def run(spec: DetectorSpec, pool: Pool, store: Store) -> Report:
    """Train, going on at the last finished epoch where an earlier driver stopped."""
    training = Training(
        plan=lambda: plan(spec, store),
        workers=spec.world_size,
        nightly=spec.nightly,
        facts=_facts,
    )
    return run_training(spec, training, pool, store)


def _facts(config: BundleConfig) -> dict[str, float]:
    """What the user is told of the bundle at the job's end."""
    val = config.metrics.get("val", {})
    figures = {
        "val ap50": val.get("ap50"),
        "val macro f1": val.get("macro f1"),
        "threshold": config.detection.score_threshold if config.detection else None,
    }
    return told_of(config, figures)
