"""The kind `score`: run a model bundle over every image it has not scored yet."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from jobs.batch import Batch, bounds_by_bytes, run_judged
from jobs.gate import Gatekeeper
from jobs.passing import pass_params, wanted_by, with_prepared
from jobs.pending import find_pending
from schemas.errors import BundleError
from schemas.plan import Counts, Plan
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
        SourceError: if the lake has no such data set.
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
    # Boxes are cut at the edges of the original.
    more = () if bundle["family"] == "classifier" else ("width", "height")
    wanted = replace(wanted_by(spec, store, bundle, "predictions"), more=more)
    if limit is not None:
        wanted = replace(wanted, order=NEWEST_FIRST)
    pending = find_pending(wanted, store, key(spec, bundle))
    inputs = pending.rows.slice(0, limit)
    deferred = Counts(deferred=pending.rows.num_rows - inputs.num_rows)
    inputs = with_prepared(spec, inputs, bundle, store)
    return Plan(
        kind=spec.kind,
        name=spec.name,
        key=key(spec, bundle),
        identity=identity(spec, bundle),
        params={
            **pass_params(spec, bundle),
            "backend": spec.backend,
            "scored_at": datetime.now(UTC).isoformat(),
        },
        inputs=inputs,
        bounds=bounds_by_bytes(inputs, spec.execution),
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
