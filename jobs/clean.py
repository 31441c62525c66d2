"""The kind `clean`: find what should not be used, and say why."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from jobs.batch import bounds_by_bytes, run_batch
from jobs.pending import Wanted, find_pending
from schemas.plan import Plan, fingerprint
from schemas.protocols import Pool, Report, Store
from schemas.reasons import DropReason
from schemas.specs.clean import CleanSpec
from workers.pixels.decoder import DECODER_VERSION
from workers.pixels.hexes import hashes_from_hex
from workers.pixels.steps import DECODER

_JUDGED = """
image_id IN (SELECT image_id FROM current_quality WHERE dataset = $dataset AND recipe = $recipe)
AND image_id NOT IN (SELECT unnest(CAST($orphans AS VARCHAR[])))"""

_ORPHANS = """
SELECT duplicate.image_id FROM current_quality AS duplicate
LEFT JOIN current_quality AS original ON original.image_id = duplicate.duplicate_of
    AND original.dataset = $dataset AND original.recipe = $recipe AND original.kept
LEFT JOIN current_images AS there ON there.image_id = original.image_id
    AND there.dataset = $dataset
WHERE duplicate.dataset = $dataset AND duplicate.recipe = $recipe
    AND duplicate.duplicate_of IS NOT NULL AND there.image_id IS NULL
"""
"""Images dropped for one that is gone from the archive or kept no more. To ask for them apart takes
less memory than to ask of every image."""

_UNLIKE = """
SELECT count(*) FILTER (len(one.patient_ids) > 0 AND len(other.patient_ids) > 0
        AND NOT list_has_any(one.patient_ids, other.patient_ids)) AS "repeat another patient's",
    count(*) FILTER (one.label <> other.label) AS "repeat one of another label"
FROM current_quality AS found
JOIN current_images AS one ON one.image_id = found.image_id AND one.dataset = $dataset
JOIN current_images AS other ON other.image_id = found.duplicate_of AND other.dataset = $dataset
WHERE found.dataset = $dataset AND found.recipe = $recipe AND found.duplicate_of IS NOT NULL
"""
"""Near-duplicates that may be none: a small hash can't tell all pictures of one organ apart."""

_KEPT = """
SELECT image_id, phash FROM current_quality JOIN current_images USING (dataset, image_id)
WHERE dataset = $dataset AND current_quality.recipe = $recipe AND kept
ORDER BY image_id
"""


def plan(spec: CleanSpec, store: Store) -> Plan:
    """Plan the images of the data set whose latest verdict is not by these rules.

    A near-duplicate is judged again when the image that was kept in its place is gone, or kept no
    more. A reject stands until the image's bytes, the rules or the decoders change, or rejects are
    retried, and a transient one not at all; images whose verdict waits in a held run are left
    out. Images kept earlier, and still there, go along for the finishing step: new ones are
    near-duplicates of them too.

    Raises:
        SourceError: if the lake has no such data set.
    """
    judged = {"dataset": spec.dataset, "recipe": recipe(spec)}
    orphans = store.query(_ORPHANS, judged)["image_id"].to_pylist()
    wanted = Wanted(
        dataset=spec.dataset,
        images="all",
        has_result=_JUDGED,
        stage="clean",
        subjects=(recipe(spec), subject(spec)),
        retry=spec.retry_rejects,
        parameters={"recipe": recipe(spec), "orphans": orphans},
    )
    pending = find_pending(wanted, store, key(spec))
    inputs = pending.rows
    return Plan(
        kind=spec.kind,
        name=spec.name,
        key=key(spec),
        identity=identity(spec),
        params={
            "dataset": spec.dataset,
            "recipe": recipe(spec),
            "subject": subject(spec),
            "thresholds": thresholds(spec),
            "max_distance": _max_distance(spec),
        },
        inputs=inputs,
        bounds=bounds_by_bytes(inputs, spec.execution),
        counts=pending.counts,
        facts={"recipe": recipe(spec)},
        staged=_kept_before(spec, store) if inputs.num_rows else {},
    )


def run(spec: CleanSpec, pool: Pool, store: Store) -> Report:
    """Clean what is new, going on where an earlier driver stopped."""
    report = run_batch(
        spec, lambda: plan(spec, store), pool, store, key=key(spec), identity=identity(spec)
    )
    if DropReason.NEAR_DUPLICATE not in report.facts:
        return report
    (told,) = store.query(_UNLIKE, {"dataset": spec.dataset, "recipe": recipe(spec)}).to_pylist()
    return replace(report, facts={**report.facts, **{name: n for name, n in told.items() if n}})


def key(spec: CleanSpec) -> tuple[str, ...]:
    """A run alone may write what these rules say of a data set."""
    return (spec.kind, spec.dataset, recipe(spec))


def recipe(spec: CleanSpec) -> str:
    """The identity of the verdicts: the rules, what decodes, and the data set.

    The data set counts because an image is a near-duplicate of another one of its data set.
    """
    rules = {"thresholds": thresholds(spec), "max_distance": _max_distance(spec)}
    return fingerprint({"clean": rules, "dataset": spec.dataset, "decoder": DECODER})


def subject(spec: CleanSpec) -> str:
    """What a reject is of: the verdicts, and the version of the decoders that failed.

    A discarded run rejects for the recipe alone: another decoder changes nothing about that.
    """
    return f"{recipe(spec)}-{DECODER_VERSION}"


def identity(spec: CleanSpec) -> Mapping[str, Any]:
    """What the verdicts depend on beside the images."""
    return {"dataset": spec.dataset, "recipe": recipe(spec), "subject": subject(spec)}


def thresholds(spec: CleanSpec) -> dict[str, Any]:
    """The fields of `workers.pixels.checks.Thresholds` that a spec asks for."""
    return {
        "min_side": spec.min_side,
        "min_contrast": spec.min_contrast,
        "min_brightness": spec.min_brightness,
        "min_sharpness": spec.min_sharpness,
    }


def _max_distance(spec: CleanSpec) -> int | None:
    return None if spec.phash is None else spec.phash.max_distance


def _kept_before(spec: CleanSpec, store: Store) -> Mapping[str, pa.Table]:
    kept = store.query(_KEPT, {"dataset": spec.dataset, "recipe": recipe(spec)})
    hashes = pa.array(hashes_from_hex(kept["phash"]))
    return {"_kept_before": pa.table({"image_id": kept["image_id"], "phash": hashes})}
