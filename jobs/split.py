"""The kind `split`: put images into train, val and test so that nothing leaks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.batch import run_batch
from jobs.datasets import require_dataset
from jobs.rows import LATEST_SPLITS
from schemas.plan import Counts, Plan, fingerprint, run_fingerprint
from schemas.protocols import Pool, Report, Store
from schemas.specs.split import SplitSpec
from workers.splitting import check

_FACTS = """
FROM current_images AS images
LEFT JOIN (
    SELECT image_id, phash, kept FROM quality WHERE dataset = $dataset
    QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY run_id DESC) = 1
) AS found ON found.image_id = images.image_id
"""
"""Not `kept_images`: the audit of a given split needs the hashes of all images."""

_SEEN = """hash(images.image_id, images.patient_ids, images.label, images.splits, len(images.uris),
    found.phash, found.kept)"""
"""What a split depends on of an image."""

_IMAGES = f"""
WITH places AS ({LATEST_SPLITS})
SELECT images.image_id, images.patient_ids, images.label, images.splits,
    len(images.uris) AS copies, found.phash, coalesce(found.kept, false) AS kept,
    places.part, places.fold, places.group_id, {_SEEN} AS seen
{_FACTS}
LEFT JOIN places ON places.image_id = images.image_id
WHERE images.dataset = $dataset
"""

_ALL_SEEN = f"""
SELECT count(*) AS images, coalesce(bit_xor({_SEEN}), 0) AS seen {_FACTS}
WHERE images.dataset = $dataset
"""

_DIGEST = "_images_seen"
"""The fact under which a run notes a digest of what it depended on."""

_PART_RULES, _FOLD_RULES = "_part_rules", "_fold_rules"
"""The facts under which a run notes by what rules it gave parts and folds."""


def plan(spec: SplitSpec, store: Store) -> Plan:
    """Plan the split of all images of the data set, or nothing where it stands as it would come.

    The audit of a split, in `metrics` and `leaks`, is of the run that computed it last.

    Raises:
        SourceError: if the lake has no such data set.
        SplitError: if no image is kept, a group is too large for a split, a part has too few
            images of a class, or there is no given split to take over.
    """
    require_dataset(spec.dataset, store)
    last = store.last_run(key(spec))
    made_by = run_fingerprint(spec.kind, identity(spec))
    same_rules = last is not None and last["fingerprint"] == made_by
    if last is not None and same_rules:
        (now,) = store.query(_ALL_SEEN, {"dataset": spec.dataset}).to_pylist()
        if last["facts"].get(_DIGEST) == str(now["seen"]):
            return _stands(spec, now["images"], str(now["seen"]))
    found = store.query(_IMAGES, {"split": spec.split_name, "dataset": spec.dataset})
    images = found.drop_columns(["seen"])
    rules = _rules(spec)
    before = {} if last is None else last["facts"]
    keep_parts = before.get(_PART_RULES) == rules[_PART_RULES]
    params = {
        **_params(spec),
        "keep_parts": keep_parts,
        "keep_folds": keep_parts and before.get(_FOLD_RULES) == rules[_FOLD_RULES],
    }
    check(images, params)
    digest = np.bitwise_xor.reduce(found["seen"].to_numpy())
    return Plan(
        kind=spec.kind,
        name=spec.name,
        key=key(spec),
        identity=identity(spec),
        params=params,
        inputs=images,
        bounds=(0, images.num_rows),
        facts={"split": spec.split_name, _DIGEST: str(digest), **rules},
    )


def run(spec: SplitSpec, pool: Pool, store: Store) -> Report:
    """Make or take over the split, and audit it."""
    return run_batch(
        spec, lambda: plan(spec, store), pool, store, key=key(spec), identity=identity(spec)
    )


def key(spec: SplitSpec) -> tuple[str, ...]:
    """A run alone may write a split of a data set."""
    return (spec.kind, spec.dataset, spec.split_name)


def identity(spec: SplitSpec) -> Mapping[str, Any]:
    """What places depend on beside the images and what is known of them."""
    return {name: value for name, value in _params(spec).items() if name != "max_group_share"}


def _rules(spec: SplitSpec) -> dict[str, str]:
    """The rules by which images get parts and folds.

    Under other rules they are dealt anew. Nothing else may do that: who was in test stays there,
    however many folds are asked for and however near a look-alike has to be.
    """
    stated = _params(spec)
    of_parts = ("mode", "shares", "seed", "val_share")
    return {
        _PART_RULES: fingerprint([stated[name] for name in of_parts if name in stated]),
        _FOLD_RULES: fingerprint(stated["folds"]),
    }


def _stands(spec: SplitSpec, images: int, digest: str) -> Plan:
    """Plan nothing: the split is as it would come."""
    return Plan(
        kind=spec.kind,
        name=spec.name,
        key=key(spec),
        identity=identity(spec),
        params={},
        inputs=pa.table({"image_id": pa.array([], pa.string())}),
        bounds=(),
        counts=Counts(up_to_date=images),
        facts={"split": spec.split_name, _DIGEST: digest},
    )


def _params(spec: SplitSpec) -> dict[str, Any]:
    params = {
        "dataset": spec.dataset,
        "split_name": spec.split_name,
        "mode": spec.mode,
        "shares": spec.parts.model_dump(mode="json"),
        "folds": spec.folds,
        "distance": spec.split_distance,
        "max_group_share": spec.max_group_share,
        "seed": spec.seed,
    }
    # Only where they are asked for: a split without them is the split it was.
    if spec.val_share:
        params["val_share"] = spec.val_share
    if spec.per_class:
        params["per_class"] = spec.per_class.model_dump(mode="json", exclude_none=True)
    return params
