"""The kind `score`: run a model bundle over every image it has not scored yet."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jobs.batch import run_batch
from jobs.pending import Wanted, find_pending
from jobs.prepared import by_file, where_prepared
from schemas.plan import Plan, shard_bounds
from schemas.protocols import Pool, Report, Store
from schemas.specs.score import ScoreSpec


def plan(spec: ScoreSpec, store: Store) -> Plan:
    """Plan the images of the data set that this model has not scored.

    A reject stands until the image's bytes change or rejects are retried, and a transient one
    not at all; images whose scores wait in a held run are left out.

    Raises:
        BundleError: if the lake has no such bundle.
    """
    bundle = store.bundle(spec.model)
    wanted = Wanted(
        dataset=spec.dataset,
        images=spec.images,
        has_result="image_id IN (SELECT image_id FROM predictions WHERE model_id = $model_id)",
        stage="score",
        subjects=(bundle["model_id"],),
        retry=spec.retry_rejects,
        parameters={"model_id": bundle["model_id"]},
    )
    pending = find_pending(wanted, store, key(spec, bundle))
    inputs = pending.rows
    if inputs.num_rows and spec.use_prepared:
        inputs = by_file(where_prepared(inputs, bundle["recipe"], store))
    return Plan(
        kind=spec.kind,
        name=spec.name,
        key=key(spec, bundle),
        identity=identity(spec, bundle),
        params=_params(spec, bundle),
        inputs=inputs,
        bounds=shard_bounds(
            inputs["bytes"].to_pylist(),
            images=spec.execution.shard_images,
            max_bytes=spec.execution.shard_bytes,
        ),
        counts=pending.counts,
        facts={"model": f"{bundle['name']}@{bundle['version']}", "model_id": bundle["model_id"]},
    )


def run(spec: ScoreSpec, pool: Pool, store: Store) -> Report:
    """Score what is new, going on where an earlier driver stopped."""
    bundle = store.bundle(spec.model)
    return run_batch(
        spec,
        lambda: plan(spec, store),
        pool,
        store,
        key=key(spec, bundle),
        identity=identity(spec, bundle),
    )


def key(spec: ScoreSpec, bundle: Mapping[str, Any]) -> tuple[str, ...]:
    """A run alone may write the scores of a model.

    The data set is no part of it: a score is of an image by a model, and two data sets that share
    images, scored at once, would score those twice.
    """
    return (spec.kind, str(bundle["model_id"]))


def identity(spec: ScoreSpec, bundle: Mapping[str, Any]) -> Mapping[str, Any]:
    """What scores depend on beside the images: the model, and which images are wanted."""
    return {"dataset": spec.dataset, "model_id": bundle["model_id"], "images": spec.images}


def _params(spec: ScoreSpec, bundle: Mapping[str, Any]) -> dict[str, Any]:
    stated = {} if spec.batch_size is None else {"batch": spec.batch_size}
    return stated | {
        "bundle": bundle["uri"],
        "model_id": bundle["model_id"],
        "backend": spec.backend,
        "device": "cuda" if spec.execution.gpus_per_worker else "cpu",
        "scored_at": datetime.now(UTC).isoformat(),
    }
