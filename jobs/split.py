"""The kind `split`: put images into train, val and test so that nothing leaks."""

import json
from collections.abc import Mapping
from typing import Any

from jobs.batch import run_batch
from jobs.rows import LATEST_SPLITS
from schemas.plan import Counts, Plan, run_fingerprint
from schemas.protocols import Pool, Report, Store
from schemas.specs.split import SplitSpec
from workers.splitting import check

_IMAGES = f"""
WITH places AS ({LATEST_SPLITS}),
found AS (
    SELECT image_id, phash FROM quality WHERE dataset = $dataset
    QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY run_id DESC) = 1
)
SELECT images.image_id, images.patient_ids, images.label, images.splits,
    len(images.uris) AS copies, found.phash,
    images.image_id IN (SELECT image_id FROM kept_images WHERE dataset = $dataset) AS kept,
    places.part, places.fold, places.group_id
FROM current_images AS images
LEFT JOIN found ON found.image_id = images.image_id
LEFT JOIN places ON places.image_id = images.image_id
WHERE images.dataset = $dataset
ORDER BY images.image_id
"""

_LAST = """
SELECT fingerprint, facts FROM runs
WHERE kind = 'split' AND key = $key AND state = 'published'
ORDER BY recorded_at DESC LIMIT 1
"""


_ROW = "image_id, patient_ids, label, splits, copies, phash, kept"
"""What a split depends on of an image."""

_SEEN = "_images_seen"
"""The fact under which a run notes a digest of those."""


def plan(spec: SplitSpec, store: Store) -> Plan:
    """Plan the split of all images of the data set, or nothing where it stands as it would come.

    Raises:
        SplitError: if no image is kept, a group is too large for a split, or there is no given
            split to take over.
    """
    wanted = {"split": spec.split_name, "dataset": spec.dataset}
    images = store.query(_IMAGES, wanted)
    seen = store.query(
        f"SELECT CAST(bit_xor(hash({_ROW})) AS VARCHAR) AS digest FROM ({_IMAGES})", wanted
    )
    digest = seen["digest"][0].as_py() or "0"
    last = store.query(_LAST, {"key": "/".join(key(spec))}).to_pylist()
    made_by = run_fingerprint(spec.kind, identity(spec))
    same_rules = bool(last) and last[0]["fingerprint"] == made_by
    up_to_date = same_rules and json.loads(last[0]["facts"]).get(_SEEN) == digest
    params = _params(spec) | {"keep_places": same_rules}
    if not up_to_date:
        check(images, params)
    return Plan(
        kind=spec.kind,
        name=spec.name,
        key=key(spec),
        identity=identity(spec),
        params=params,
        inputs=images.slice(0, 0) if up_to_date else images,
        bounds=() if up_to_date else (0, images.num_rows),
        counts=Counts(up_to_date=images.num_rows if up_to_date else 0),
        facts={"split": spec.split_name, _SEEN: digest},
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
    return _params(spec)


def _params(spec: SplitSpec) -> dict[str, Any]:
    return {
        "dataset": spec.dataset,
        "split_name": spec.split_name,
        "mode": spec.mode,
        "shares": spec.parts.model_dump(mode="json"),
        "folds": spec.folds,
        "distance": spec.split_distance,
        "max_group_share": spec.max_group_share,
        "seed": spec.seed,
    }
