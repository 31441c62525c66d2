"""Trains a support vector machine on vectors of the lake, in the process that calls."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cluster.fetch import Fetcher
from cluster.lake.store import LakeStore
from cluster.sources import read_source
from cluster.train_task import one_thread
from schemas.bundle import (
    CONFIG_FILE,
    OUTCOME_FILE,
    WEIGHTS_FILE,
    BundleConfig,
    parse_config,
)
from schemas.errors import RunError
from workers.models.classifier.bundling import BundleFacts, Validation
from workers.models.classifier.finishing import read_validation
from workers.models.classifier.svm import SvmSettings, fit_svm
from workers.models.classifier.svm_bundling import Examined, svm_bundle
from workers.training.examples import Examples

_VECTORS = """
SELECT image_id, vector FROM embeddings
WHERE model_id = $model_id AND image_id IN (SELECT unnest($ids))
QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY run_id) = 1
"""


def train_svm(lake: str, rows: pa.Table, config: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of the bundle, and `schemas.bundle.OUTCOME_FILE`.

    ``rows`` and ``config`` are the inputs and the parameters of the run's plan. Images are read
    only to measure backends on those of part val; otherwise vectors tell all there is to know.

    Raises:
        RunError: when a class has too few patients, or images have lost their vectors.
    """
    folder = config["start_uri"].removesuffix(f"/{WEIGHTS_FILE}")
    start = {name: read_source(f"{folder}/{name}") for name in (CONFIG_FILE, WEIGHTS_FILE)}
    start_config = parse_config(start[CONFIG_FILE], folder)
    fit = config["svm"]
    examples = Examples(rows, Fetcher(lake).fetch)
    targets_N = examples.targets(fit["classes"])
    vectors_ND = read_vectors(lake, config["start_id"], rows["image_id"])
    groups = rows["group"].to_pylist()
    train_rows, val_rows = examples.of_part("train"), examples.of_part("val")
    with one_thread():
        parameters = fit_svm(
            vectors_ND[train_rows],
            targets_N[train_rows],
            [groups[row] for row in train_rows],
            SvmSettings(**fit["settings"]),
        )
        facts = _facts(config, start_config, len(parameters.vectors_SD))
        validation: Validation | Examined = Examined(
            vectors_ND[val_rows], targets_N[val_rows], [groups[row] for row in val_rows]
        )
        if facts.backends == "measured":
            recipe = start_config.preprocessing.recipe
            validation = read_validation(recipe, facts.classes, examples)
        files = svm_bundle(start, parameters, facts, validation)
    return {**files, OUTCOME_FILE: json.dumps({"rejects": [], "history": []}).encode()}


def read_vectors(lake: str, model_id: str, image_ids: pa.ChunkedArray) -> NDArray[np.float32]:
    """Feature vectors (N, D) of a model, in the order of ``image_ids``.

    Raises:
        RunError: when an image has none.
    """
    asked = {"model_id": model_id, "ids": image_ids.to_pylist()}
    found = LakeStore.open(lake).query(_VECTORS, asked)
    places = pc.index_in(image_ids, value_set=found["image_id"].combine_chunks())
    if places.null_count:
        raise RunError(
            "Images have no features any more",
            where=f"model {model_id}",
            got=f"{places.null_count} of {len(places)} images without",
            remedy="run `kind: embed` again, then this job",
        )
    vectors = found["vector"].combine_chunks()
    matrix_ND = vectors.flatten().to_numpy().reshape(len(vectors), -1)
    ordered_ND: NDArray[np.float32] = matrix_ND[places.to_numpy()]
    return ordered_ND


def _facts(config: Mapping[str, Any], start: BundleConfig, vectors: int) -> BundleFacts:
    fit = config["svm"]
    return BundleFacts(
        **config["bundle"],
        architecture=start.architecture,
        classes=tuple(fit["classes"]),
        batch=start.batch,
        gpu_batch=start.gpu_batch,
        training={"settings": fit["settings"], "vectors": vectors},
    )
