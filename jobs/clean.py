"""The kind `clean`: find what should not be used, and say why."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from jobs.batch import bounds_by_bytes, run_batch
from jobs.pending import Wanted, find_pending
from schemas.plan import Plan, fingerprint
from schemas.protocols import Pool, Report, Store
from schemas.specs.clean import CleanSpec
from workers.pixels.decoder import DECODER_VERSION
from workers.pixels.hexes import hashes_from_hex
from workers.pixels.steps import DECODER

_KEPT = """
SELECT image_id, phash FROM current_quality JOIN current_images USING (dataset, image_id)
WHERE dataset = $dataset AND current_quality.recipe = $recipe AND kept
ORDER BY image_id
"""


def plan(spec: CleanSpec, store: Store) -> Plan:
    """Plan the images of the data set whose latest verdict is not by these rules.

    A reject stands until the image's bytes, the rules or the decoders change, or rejects are
    retried, and a transient one not at all; images whose verdict waits in a held run are left
    out. Images kept earlier, and still there, go along for the finishing step: new ones are
    near-duplicates of them too.
    """
    wanted = Wanted(
        dataset=spec.dataset,
        images="all",
        has_result="""image_id IN (
            SELECT image_id FROM current_quality WHERE dataset = $dataset AND recipe = $recipe)""",
        stage="clean",
        subjects=(recipe(spec), subject(spec)),
        retry=spec.retry_rejects,
        parameters={"recipe": recipe(spec)},
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
            "thresholds": _thresholds(spec),
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
    return run_batch(
        spec, lambda: plan(spec, store), pool, store, key=key(spec), identity=identity(spec)
    )


def key(spec: CleanSpec) -> tuple[str, ...]:
    """A run alone may write what these rules say of a data set."""
    return (spec.kind, spec.dataset, recipe(spec))


def recipe(spec: CleanSpec) -> str:
    """The identity of the verdicts: the rules, what decodes, and the data set.

    The data set counts because an image is a near-duplicate of another one of its data set.
    """
    rules = {"thresholds": _thresholds(spec), "max_distance": _max_distance(spec)}
    return fingerprint({"clean": rules, "dataset": spec.dataset, "decoder": DECODER})


def subject(spec: CleanSpec) -> str:
    """What a reject is of: the verdicts, and the version of the decoders that failed.

    A discarded run rejects for the recipe alone: another decoder changes nothing about that.
    """
    return f"{recipe(spec)}-{DECODER_VERSION}"


def identity(spec: CleanSpec) -> Mapping[str, Any]:
    """What the verdicts depend on beside the images."""
    return {"dataset": spec.dataset, "recipe": recipe(spec), "subject": subject(spec)}


def _thresholds(spec: CleanSpec) -> dict[str, Any]:
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
