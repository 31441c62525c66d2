"""The kind `score`: run a model bundle over every image it has not scored yet."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc

from jobs.batch import run_batch
from schemas.plan import Counts, Plan, shard_bounds
from schemas.protocols import Pool, Report, Store
from schemas.reasons import TRANSIENT
from schemas.specs.score import ScoreSpec

_VIEWS = {"kept": "kept_images", "all": "current_images"}

_TO_SCORE = """
SELECT image_id, uri, frame, etag, bytes FROM {view} AS images
WHERE dataset = $dataset
    AND NOT EXISTS (
        SELECT 1 FROM predictions
        WHERE model_id = $model_id AND predictions.image_id = images.image_id)
    AND NOT EXISTS (
        SELECT 1 FROM rejects
        WHERE NOT $retry AND stage = 'score' AND subject = $model_id
            AND rejects.image_id = images.image_id
            AND rejects.etag IS NOT DISTINCT FROM images.etag
            AND NOT list_contains($transient, reason))
ORDER BY uri, frame, image_id
"""


def plan(spec: ScoreSpec, store: Store) -> Plan:
    """Plan the images of the data set that this model has not scored.

    A reject stands until the image's bytes change or rejects are retried, and a transient one
    not at all; images whose scores wait in a held run are left out.

    Raises:
        BundleError: if the lake has no such bundle.
    """
    bundle = store.bundle(spec.model)
    view = _VIEWS[spec.images]
    wanted = {
        "dataset": spec.dataset,
        "model_id": bundle["model_id"],
        "retry": spec.retry_rejects,
        "transient": sorted(TRANSIENT),
    }
    images = store.query(_TO_SCORE.format(view=view), wanted)
    counted = store.query(
        f"SELECT count(*) AS n FROM {view} WHERE dataset = $dataset", {"dataset": spec.dataset}
    )
    waiting = pc.is_in(images["image_id"], value_set=store.held_images(key(spec, bundle)))
    inputs = images.filter(pc.invert(waiting))
    total = int(counted["n"][0].as_py())
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
        counts=Counts(up_to_date=total - images.num_rows, held=images.num_rows - inputs.num_rows),
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
