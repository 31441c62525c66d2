"""The kind `score`: run a model bundle over every image it has not scored yet."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from jobs.batch import Batch, run_judged
from jobs.gate import Gatekeeper
from jobs.pending import Wanted, find_pending
from jobs.prepared import by_file, where_prepared
from jobs.rows import IN_PARTS, count_folds, require_split
from schemas.errors import BundleError
from schemas.plan import Counts, Plan, shard_bounds
from schemas.protocols import Pool, Report, Store
from schemas.specs.score import ScoreSpec

NEWEST_FIRST = """
EXISTS (
    SELECT 1 FROM rejects
    WHERE stage = $stage AND list_contains($subjects, subject)
        AND rejects.image_id = images.image_id
        AND rejects.etag IS NOT DISTINCT FROM images.etag
        AND list_contains($transient, reason)),
study_date DESC NULLS LAST, uri, frame, image_id"""
"""The order of slices: the newest studies first, and after all others what is tried again.

Otherwise new images that can't be read just now would keep slices from all older ones."""


def plan(spec: ScoreSpec, store: Store, limit: int | None = None) -> Plan:
    """Plan the images of the data set that this model has not scored.

    A reject stands until the image's bytes change or rejects are retried, and a transient one
    not at all; images whose scores wait in a held run are left out. With a ``limit``, the newest
    studies are planned, and after all others those that an earlier run rejected for the moment; so
    many images at most, and the others are counted as deferred.

    Raises:
        BundleError: if the lake has no such bundle, or it has no classes.
        SplitError: if the parts of the split have no images, or it has no such fold.
    """
    return _plan(spec, store, store.bundle(spec.model), limit)


def run(spec: ScoreSpec, pool: Pool, store: Store, limit: int | None = None) -> Report:
    """Score what is new, going on where an earlier driver stopped.

    With a ``limit``, a slice of so many images at most. A run that the gate holds is committed and
    stays out of sight.
    """
    bundle = store.bundle(spec.model)
    keeper = Gatekeeper(spec.gate, spec.dataset, bundle) if spec.gate else None
    batch = Batch(
        plan=lambda: _plan(spec, store, bundle, limit),
        key=key(spec, bundle),
        identity=identity(spec, bundle),
        judge=(lambda run: keeper.judge(run, pool, store)) if keeper else None,
    )
    return run_judged(spec, batch, pool, store)


def key(spec: ScoreSpec, bundle: Mapping[str, Any]) -> tuple[str, ...]:
    """A run alone may write the scores of a model.

    The data set is no part of it: a score is of an image by a model, and two data sets that share
    images, scored at once, would score those twice.
    """
    return (spec.kind, str(bundle["model_id"]))


def identity(spec: ScoreSpec, bundle: Mapping[str, Any]) -> Mapping[str, Any]:
    """What scores depend on beside the images: the model, and which images are wanted."""
    stated = {"dataset": spec.dataset, "model_id": bundle["model_id"], "images": spec.images}
    if spec.split is None:
        return stated
    return stated | {"split": spec.split, "parts": list(spec.parts), "fold": spec.fold}


def _plan(spec: ScoreSpec, store: Store, bundle: Mapping[str, Any], limit: int | None) -> Plan:
    _check_scores(bundle)
    wanted = _wanted(spec, store, bundle)
    if limit is not None:
        wanted = replace(wanted, order=NEWEST_FIRST)
    pending = find_pending(wanted, store, key(spec, bundle))
    inputs = pending.rows.slice(0, limit)
    deferred = Counts(deferred=pending.rows.num_rows - inputs.num_rows)
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
        counts=pending.counts + deferred,
        facts={
            "model": f"{bundle['name']}@{bundle['version']}",
            "model_id": bundle["model_id"],
            "night": store.night.isoformat(),
        },
    )


def _check_scores(bundle: Mapping[str, Any]) -> None:
    if not bundle["classes"]:
        raise BundleError(
            "The bundle has no classes, so it scores nothing: it was trained without labels",
            where=f"{bundle['name']}@{bundle['version']}, score.model",
            got=bundle["family"],
            remedy=f"take its features with `kind: embed`, or train from it with "
            f"`start: bundle:{bundle['name']}`",
        )


def _wanted(spec: ScoreSpec, store: Store, bundle: Mapping[str, Any]) -> Wanted:
    parameters: dict[str, Any] = {"model_id": bundle["model_id"]}
    if spec.split is not None:
        if spec.fold is None:
            require_split(store, spec.dataset, spec.split, spec.parts)
        else:
            count_folds(store, spec.dataset, spec.split, spec.fold)
        parameters |= {"split": spec.split, "parts": list(spec.parts), "fold": spec.fold}
    return Wanted(
        dataset=spec.dataset,
        images=spec.images,
        has_result="image_id IN (SELECT image_id FROM predictions WHERE model_id = $model_id)",
        stage="score",
        subjects=(bundle["model_id"],),
        retry=spec.retry_rejects,
        parameters=parameters,
        among=IN_PARTS if spec.split is not None else "true",
        # Boxes are cut at the edges of the original.
        more=() if bundle["family"] == "classifier" else ("width", "height"),
    )


def _params(spec: ScoreSpec, bundle: Mapping[str, Any]) -> dict[str, Any]:
    stated = {} if spec.batch_size is None else {"batch": spec.batch_size}
    return stated | {
        "bundle": bundle["uri"],
        "model_id": bundle["model_id"],
        "backend": spec.backend,
        "device": "cuda" if spec.execution.gpus_per_worker else "cpu",
        "scored_at": datetime.now(UTC).isoformat(),
    }
