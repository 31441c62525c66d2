"""The kind `evaluate`: compare predictions with labels, part by part."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.batch import run_batch
from jobs.rows import GROUP, LATEST_SPLITS, ROLE, count_folds, digest_rows
from schemas.errors import LeakError
from schemas.plan import Counts, Plan, fingerprint, run_fingerprint
from schemas.protocols import Pool, Report, Store
from schemas.specs.train import EvaluateSpec

_SCORED = f"""
WITH places AS ({LATEST_SPLITS}),
scored AS (
    SELECT * FROM predictions WHERE model_id = $model_id
    QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY run_id DESC) = 1
)
SELECT places.image_id, CASE WHEN $fold IS NULL THEN places.part ELSE 'test' END AS part,
    images.label, {GROUP} AS "group", scored.scores,
    scored.run_id AS scored_by
FROM places
JOIN current_images AS images ON images.image_id = places.image_id
LEFT JOIN scored ON scored.image_id = places.image_id
WHERE images.dataset = $dataset AND CASE
    WHEN $fold IS NULL THEN places.part IN (SELECT unnest($parts))
    ELSE places.part IN ('train', 'val') AND places.fold = $fold END
ORDER BY places.image_id
"""

_LEARNED = f"""
WITH places AS (
    SELECT image_id, {ROLE} AS role FROM splits
    WHERE split_name = $split AND dataset = $dataset AND ($run IS NULL OR run_id <= $run)
    QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY run_id DESC) = 1
)
SELECT image_id, role FROM places WHERE role IN ('train', 'val')
"""

_ASKED = "_asked"
"""The fact under which a run notes a hash of its question."""


def plan(spec: EvaluateSpec, store: Store) -> Plan:
    """Plan the figures of every part, or nothing where their newest ones are of these very rows.

    Images without a label of the model's classes, or without a score, count in no figure; the
    plan's facts say how many there are.

    Raises:
        BundleError: if the lake has no such bundle.
        LeakError: if the model learned from what it would be evaluated on.
        SplitError: if the split has no such fold.
    """
    bundle = store.bundle(spec.model)
    return _plan(spec, store, bundle, _rows(spec, store, bundle))


def run(spec: EvaluateSpec, pool: Pool, store: Store) -> Report:
    """Compute the figures, unless they are there already."""
    bundle = store.bundle(spec.model)
    found = _rows(spec, store, bundle)
    return run_batch(
        spec,
        lambda: _plan(spec, store, bundle, found),
        pool,
        store,
        key=key(spec, bundle),
        identity=identity(spec, bundle, _usable(found, bundle)),
    )


def key(spec: EvaluateSpec, bundle: Mapping[str, Any]) -> tuple[str, ...]:
    """A run alone may write the figures of a model on a split."""
    return (spec.kind, spec.dataset, spec.split, str(bundle["model_id"]))


def identity(spec: EvaluateSpec, bundle: Mapping[str, Any], rows: pa.Table) -> Mapping[str, Any]:
    """What the figures depend on: the rows, the operating point and the resampling."""
    return _question(spec, bundle) | {
        "operating_point": _operating_point(bundle),
        "rows": digest_rows(rows, ("image_id", "part", "label", "group", "scored_by")),
    }


def _question(spec: EvaluateSpec, bundle: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked, whatever the answer; the name counts, since the figures bear it."""
    return spec.identity() | {"study": spec.name, "model_id": bundle["model_id"]}


def _plan(spec: EvaluateSpec, store: Store, bundle: Mapping[str, Any], found: pa.Table) -> Plan:
    rows = _usable(found, bundle)
    stated = identity(spec, bundle, rows)
    inputs = rows.drop_columns(["scored_by"])
    asked = fingerprint(_question(spec, bundle))
    if _evaluated(store, key(spec, bundle), asked, run_fingerprint(spec.kind, stated)):
        counts, inputs = Counts(up_to_date=rows.num_rows), inputs.slice(0, 0)
    else:
        counts = Counts()
    return Plan(
        kind=spec.kind,
        name=spec.name,
        key=key(spec, bundle),
        identity=stated,
        params=_params(spec, bundle),
        inputs=inputs,
        # One shard: a resampled figure needs all images at once.
        bounds=(0, inputs.num_rows) if inputs.num_rows else (),
        counts=counts,
        facts=_facts(found, bundle) | {_ASKED: asked},
    )


def _rows(spec: EvaluateSpec, store: Store, bundle: Mapping[str, Any]) -> pa.Table:
    if spec.fold is not None:
        count_folds(store, spec.dataset, spec.split, spec.fold)
    found = store.query(
        _SCORED,
        {
            "split": spec.split,
            "dataset": spec.dataset,
            "model_id": bundle["model_id"],
            "parts": list(spec.parts),
            "fold": spec.fold,
        },
    )
    _refuse_learned(spec, store, bundle, found)
    return found


def _refuse_learned(
    spec: EvaluateSpec, store: Store, bundle: Mapping[str, Any], found: pa.Table
) -> None:
    """Stop where a model would be asked about images that it learned from.

    Images count, not names: a split may have been made anew since, or be another one. Validation
    images may be asked about as such.
    """
    data = json.loads(bundle["data"] or "{}")
    if "split" not in data:
        return
    wanted = {
        "dataset": data["dataset"],
        "split": data["split"],
        "run": data.get("split_run"),
        "fold": data.get("fold"),
        "inner_fold": data.get("inner_fold"),
    }
    learned = store.query(_LEARNED, wanted)
    trained = learned.filter(pc.equal(learned["role"], "train"))
    known = {"test": learned["image_id"], "val": trained["image_id"]}
    for part, ids in known.items():
        asked = found.filter(pc.equal(found["part"], part))["image_id"]
        images = pc.sum(pc.is_in(asked, value_set=ids)).as_py() or 0
        if images:
            held_out = data.get("fold")
            raise LeakError(
                "The model learned from images it would be evaluated on",
                where=f"{bundle['name']}@{bundle['version']}, part {part} of {spec.split}",
                got=f"{images} of {len(asked)} images",
                remedy=(
                    "evaluate with `parts: [test]` and the split it was trained by"
                    if held_out is None
                    else f"evaluate with `fold: {held_out}`, or with `parts: [test]`"
                ),
            )


def _usable(found: pa.Table, bundle: Mapping[str, Any]) -> pa.Table:
    """Rows with a score and a label of the model's classes."""
    return found.filter(pc.and_(_labelled(found, bundle), pc.is_valid(found["scores"])))


def _labelled(found: pa.Table, bundle: Mapping[str, Any]) -> pa.ChunkedArray:
    return pc.is_in(found["label"], value_set=pa.array(bundle["classes"], pa.string()))


def _facts(found: pa.Table, bundle: Mapping[str, Any]) -> dict[str, Any]:
    labelled = _labelled(found, bundle)
    unscored = pc.and_(labelled, pc.is_null(found["scores"]))
    counts = {
        "without a label": pc.invert(labelled),
        "without a score": unscored,
    }
    whole = {name: int(pc.sum(mask).as_py() or 0) for name, mask in counts.items()}
    return {"model": f"{bundle['name']}@{bundle['version']}"} | whole


def _params(spec: EvaluateSpec, bundle: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "classes": list(bundle["classes"]),
        "operating_point": _operating_point(bundle),
        "parts": list(spec.parts) if spec.fold is None else ["test"],
        "bootstrap": spec.bootstrap,
        "seed": spec.seed,
        "columns": {
            "study": spec.name,
            "trial": spec.split,
            "fold": spec.fold,
            "dataset": spec.dataset,
            "subgroup": "",
            "model_id": bundle["model_id"],
        },
    }


def _operating_point(bundle: Mapping[str, Any]) -> dict[str, Any] | None:
    stated = bundle["operating_point"]
    return json.loads(stated) if stated else None


def _evaluated(store: Store, owned: tuple[str, ...], asked: str, made_by: str) -> bool:
    """Whether the newest answer to this question came from just these rows.

    Other questions about the same model and split (other parts, another name) stand between.
    """
    newest = store.query(
        "SELECT fingerprint FROM runs WHERE kind = 'evaluate' AND key = $key "
        "AND state = 'published' AND facts ->> $fact = $asked ORDER BY recorded_at DESC LIMIT 1",
        {"key": "/".join(owned), "fact": _ASKED, "asked": asked},
    )
    return bool(newest["fingerprint"].to_pylist() == [made_by])
