"""The kind `pretrain`: learn a backbone without labels and put its bundle into the lake."""

from jobs.pretrain.corpus import read_corpus
from jobs.pretrain.settings import training_config, training_identity
from jobs.pretrain.start import resolve_start
from jobs.rows import digest_rows
from jobs.settings import recipe_of
from jobs.training import Lesson, Training, plan_training, run_training
from schemas.bundle import BundleConfig
from schemas.plan import Plan
from schemas.protocols import Pool, Report, Store
from schemas.specs.pretrain import PretrainSpec


def plan(spec: PretrainSpec, store: Store) -> Plan:
    """Plan all images of parts train and val, or nothing where the bundle is there.

    Raises:
        BundleError: if the bundle to start from is not there or does not fit.
        LeakError: if a patient or group of duplicates stands in two parts, or the bundle to
            start from learned from images to test on, unless the spec allows it.
        SplitError: if the split has no images in train or val, or no such fold.
    """
    corpus = read_corpus(spec, store)
    start = resolve_start(spec, store, corpus.placed.folds)
    training = training_config(spec, corpus.classes)
    # Weights depend on no label, but the probe's figures do, which the bundle holds too.
    columns = ("image_id", "part", *(("label",) if training["probe"] else ()))
    lesson = Lesson(
        rows=corpus.rows,
        placed=corpus.placed,
        start=start,
        recipe=recipe_of(spec.preprocess).hash,
        method={"method": spec.kind, "training": training},
        identity={
            "training": training_identity(training),
            "workers": spec.world_size,
            "rows": digest_rows(corpus.rows, columns),
        },
        counts=corpus.counts(),
        facts={"probe": "none, without labels"} if spec.probe and not corpus.classes else {},
    )
    return plan_training(spec, lesson, store)


def run(spec: PretrainSpec, pool: Pool, store: Store) -> Report:
    """Train, going on at the last finished epoch where an earlier driver stopped."""
    training = Training(
        plan=lambda: plan(spec, store), workers=spec.world_size, nightly=False, facts=_facts
    )
    return run_training(spec, training, pool, store)


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
