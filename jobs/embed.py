"""The kind `embed`: a bundle's feature vector of every image that has none yet."""

from collections.abc import Mapping
from typing import Any

from jobs.batch import run_batch
from jobs.pending import Wanted, find_pending
from jobs.prepared import by_file, where_prepared
from jobs.rows import IN_PARTS, require_split
from schemas.plan import Plan, shard_bounds
from schemas.protocols import Pool, Report, Store
from schemas.specs.embed import EmbedSpec


def plan(spec: EmbedSpec, store: Store) -> Plan:
    """Plan the images of the data set, or of parts of its split, that have no vector of this model.

    A reject stands until the image's bytes change or rejects are retried, and a transient one
    not at all; images whose vectors wait in a held run are left out.

    Raises:
        BundleError: if the lake has no such bundle.
        SplitError: if the parts of the split have no images.
    """
    bundle = store.bundle(spec.model)
    pending = find_pending(_wanted(spec, store, bundle), store, key(spec, bundle))
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


def run(spec: EmbedSpec, pool: Pool, store: Store) -> Report:
    """Embed what is new, going on where an earlier driver stopped."""
    bundle = store.bundle(spec.model)
    return run_batch(
        spec,
        lambda: plan(spec, store),
        pool,
        store,
        key=key(spec, bundle),
        identity=identity(spec, bundle),
    )


def key(spec: EmbedSpec, bundle: Mapping[str, Any]) -> tuple[str, ...]:
    """A run alone may write the vectors of a model, whichever data set they are of."""
    return (spec.kind, str(bundle["model_id"]))


def identity(spec: EmbedSpec, bundle: Mapping[str, Any]) -> Mapping[str, Any]:
    """What vectors depend on beside the images: the model, and which images are wanted."""
    return spec.identity() | {"model": bundle["model_id"]}


def _wanted(spec: EmbedSpec, store: Store, bundle: Mapping[str, Any]) -> Wanted:
    parameters: dict[str, Any] = {"model_id": bundle["model_id"]}
    if spec.split is not None:
        require_split(store, spec.dataset, spec.split, spec.parts)
        parameters |= {"split": spec.split, "parts": list(spec.parts), "fold": None}
    return Wanted(
        dataset=spec.dataset,
        images=spec.images,
        has_result="image_id IN (SELECT image_id FROM embeddings WHERE model_id = $model_id)",
        stage="embed",
        subjects=(bundle["model_id"],),
        retry=spec.retry_rejects,
        parameters=parameters,
        among=IN_PARTS if spec.split is not None else "true",
    )


def _params(spec: EmbedSpec, bundle: Mapping[str, Any]) -> dict[str, Any]:
    stated = {} if spec.batch_size is None else {"batch": spec.batch_size}
    return stated | {
        "bundle": bundle["uri"],
        "model_id": bundle["model_id"],
        "device": "cuda" if spec.execution.gpus_per_worker else "cpu",
    }
