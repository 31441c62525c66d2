"""The kind `embed`: a bundle's feature vector of every image that has none yet."""

from collections.abc import Mapping
from typing import Any

from jobs.batch import bounds_by_bytes, run_batch
from jobs.passing import pass_params, wanted_by, with_prepared
from jobs.pending import find_pending
from schemas.plan import Plan
from schemas.protocols import Pool, Report, Store
from schemas.specs.embed import EmbedSpec


def plan(spec: EmbedSpec, store: Store) -> Plan:
    """Plan the images of the data set, or of parts of its split, that have no vector of this model.

    A reject stands until the image's bytes change or rejects are retried, and a transient one
    not at all; images whose vectors wait in a held run are left out.

    Raises:
        BundleError: if the lake has no such bundle.
        SourceError: if the lake has no such data set.
        SplitError: if the parts of the split have no images.
    """
    bundle = store.bundle(spec.model)
    pending = find_pending(wanted_by(spec, store, bundle, "embeddings"), store, key(spec, bundle))
    inputs = with_prepared(spec, pending.rows, bundle, store)
    return Plan(
        kind=spec.kind,
        name=spec.name,
        key=key(spec, bundle),
        identity=identity(spec, bundle),
        params=pass_params(spec, bundle),
        inputs=inputs,
        bounds=bounds_by_bytes(inputs, spec.execution),
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
