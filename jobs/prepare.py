"""The kind `prepare`: carry out a recipe on every image that has no pixels of it yet."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.batch import run_batch
from jobs.pending import Wanted, find_pending
from schemas.plan import Plan, shard_bounds
from schemas.protocols import Pool, Report, Store
from schemas.specs.prepare import PrepareSpec
from workers.pixels.decoder import DECODER_VERSION
from workers.pixels.steps import Recipe


def plan(spec: PrepareSpec, store: Store) -> Plan:
    """Plan the images of the data set that have no pixels by this recipe.

    A reject stands until the image's bytes, the recipe or the decoders change, or rejects are
    retried, and a transient one not at all; images whose pixels wait in a held run are left out.

    Raises:
        SourceError: if the lake has no such data set.
    """
    recipe = _recipe(spec)
    wanted = Wanted(
        dataset=spec.dataset,
        images=spec.images,
        has_result="image_id IN (SELECT image_id FROM prepared WHERE recipe = $recipe)",
        stage="prepare",
        subjects=(recipe.hash, subject(spec)),
        retry=spec.retry_rejects,
        parameters={"recipe": recipe.hash},
    )
    pending = find_pending(wanted, store, key(spec))
    return Plan(
        kind=spec.kind,
        name=spec.name,
        key=key(spec),
        identity=identity(spec),
        params={"recipe": recipe.to_dict(), "subject": subject(spec)},
        inputs=pending.rows,
        bounds=_bounds(spec, pending.rows),
        counts=pending.counts,
        facts={"recipe": recipe.hash, "size": recipe.size},
    )


def run(spec: PrepareSpec, pool: Pool, store: Store) -> Report:
    """Prepare what is new, going on where an earlier driver stopped."""
    return run_batch(
        spec, lambda: plan(spec, store), pool, store, key=key(spec), identity=identity(spec)
    )


def key(spec: PrepareSpec) -> tuple[str, ...]:
    """A run alone may write the pixels of a recipe.

    The data set is no part of it: pixels are of an image by a recipe, and two data sets that share
    images, prepared at once, would prepare those twice.
    """
    return (spec.kind, _recipe(spec).hash)


def subject(spec: PrepareSpec) -> str:
    """What a reject is of: the recipe, and the version of the decoders that failed.

    A discarded run rejects for the recipe alone: another decoder changes nothing about that.
    """
    return f"{_recipe(spec).hash}-{DECODER_VERSION}"


def identity(spec: PrepareSpec) -> Mapping[str, Any]:
    """What a run depends on beside the images: the recipe, and which images are wanted."""
    return {
        "dataset": spec.dataset,
        "images": spec.images,
        "recipe": _recipe(spec).hash,
        "subject": subject(spec),
    }


def _recipe(spec: PrepareSpec) -> Recipe:
    return Recipe.from_dict(spec.preprocess.model_dump(mode="json"))


def _bounds(spec: PrepareSpec, inputs: pa.Table) -> tuple[int, ...]:
    """Cut shards by what they read and write: enlarged images take more than their sources."""
    made = spec.preprocess.size**2 * spec.preprocess.channels
    sizes = np.asarray(inputs["bytes"].to_numpy(), np.int64) + made
    return shard_bounds(
        sizes.tolist(), images=spec.execution.shard_images, max_bytes=spec.execution.shard_bytes
    )
