"""The head svm: its settings in the words of its workers, and the rows that have features."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.starting import Start
from schemas.errors import BundleError
from schemas.protocols import Store
from schemas.reasons import TRANSIENT
from schemas.specs.train import TrainSpec

PLATT_FOLDS = 5
"""`workers.models.classifier.svm.FOLDS`, which can't be imported here: scikit-learn is heavy."""

_EMBEDDED = "SELECT DISTINCT image_id FROM embeddings WHERE model_id = $model_id"

_REJECTED = (
    "SELECT DISTINCT image_id FROM rejects WHERE stage = 'embed' AND subject = $model_id "
    "AND NOT list_contains($transient, reason)"
)


def svm_config(spec: TrainSpec, classes: tuple[str, ...]) -> dict[str, Any]:
    """The spec in the words of `workers.models.classifier.svm.SvmSettings`, and the classes.

    A sampler, which a machine has no use for, means weights.
    """
    return {
        "classes": list(classes),
        "settings": {
            "kernel": spec.svm.kernel,
            "c": spec.svm.c,
            "gamma": spec.svm.gamma,
            "balanced": spec.balance != "none",
        },
    }


def svm_identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a machine's settings its result depends on, those that workers decide included."""
    settings = dict(config["settings"])
    if settings["kernel"] == "linear":
        del settings["gamma"]
    return {**config, "settings": settings, "platt_folds": PLATT_FOLDS}


def with_features(spec: TrainSpec, store: Store, start: Start, rows: pa.Table) -> pa.Table:
    """The rows whose image has a vector of the start bundle; left out are those `embed` rejected.

    Raises:
        BundleError: if other images have none either.
    """
    model_id = start.bundle["model_id"]
    embedded = store.query(_EMBEDDED, {"model_id": model_id})["image_id"].combine_chunks()
    there = pc.is_in(rows["image_id"], value_set=embedded)
    absent = rows.filter(pc.invert(there))
    asked = {"model_id": model_id, "transient": sorted(TRANSIENT)}
    rejected = store.query(_REJECTED, asked)["image_id"].combine_chunks()
    unknown = absent.filter(pc.invert(pc.is_in(absent["image_id"], value_set=rejected)))
    if unknown.num_rows:
        name = start.told["bundle"]
        raise BundleError(
            "Images to train on have no features of the start bundle yet",
            where=f"{name}, data set {spec.dataset}, split {spec.split}",
            got=f"{unknown.num_rows} of {rows.num_rows} images without",
            remedy=f"run `kind: embed` with `dataset: {spec.dataset}`, `model: {name}` and "
            f"`split: {spec.split}` first (`images: all` where cleaning dropped some since)",
        )
    return rows.filter(there)
