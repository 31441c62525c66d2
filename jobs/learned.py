"""Which images a model learned from, and which of others it has met thereby."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.rows import LATEST_SPLITS, ROLE
from schemas.errors import LeakError
from schemas.naming import reference
from schemas.protocols import Store

_LEARNED = f"""
    SELECT image_id, role FROM (
        SELECT image_id, {ROLE} AS role FROM splits
        WHERE split_name = $learned_split AND dataset = $learned_dataset
            AND ($run IS NULL OR run_id <= $run)
        QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY run_id DESC) = 1)
    WHERE role IN ('train', 'val') AND image_id NOT IN (
        SELECT image_id FROM current_images
        WHERE dataset = $learned_dataset AND len($sites) > 0
            AND NOT coalesce(list_contains($sites, site), false))
"""
# An image that is gone can't be told to be of another site, so it counts as learned.

_NOW = LATEST_SPLITS.replace("$split", "$learned_split").replace("$dataset", "$learned_dataset")

_MET = f"""
WITH learned AS (SELECT image_id FROM ({_LEARNED}) WHERE list_contains($roles, role)),
places AS ({LATEST_SPLITS}),
their_places AS ({_NOW}),
patients AS (
    SELECT DISTINCT unnest(patient_ids) AS patient FROM current_images
    WHERE image_id IN (SELECT image_id FROM learned)
),
asked AS (
    SELECT image_id, patient_ids FROM current_images
    WHERE dataset = $dataset AND image_id IN (SELECT image_id FROM places)
),
of_patients AS (
    SELECT image_id FROM (SELECT image_id, unnest(patient_ids) AS patient FROM asked)
    WHERE patient IN (SELECT patient FROM patients)
),
alike AS (
    SELECT image_id FROM places WHERE group_id IN (
        SELECT group_id FROM places WHERE image_id IN (SELECT image_id FROM learned))
    UNION ALL
    SELECT image_id FROM their_places WHERE group_id IN (
        SELECT group_id FROM their_places WHERE image_id IN (SELECT image_id FROM learned))
),
met AS (
    SELECT image_id, image_id IN (SELECT image_id FROM learned) AS image,
        image_id IN (SELECT image_id FROM of_patients) AS patient,
        image_id IN (SELECT image_id FROM alike) AS duplicate
    FROM asked
)
SELECT * FROM met WHERE image OR patient OR duplicate
"""
# Groups are those of the split that is asked about and of the one that was learned by: either may
# tell look-alikes that the other does not know.

_STARTED_FROM = "SELECT data FROM models WHERE name = $name AND version = $version LIMIT 1"

_WITH_WEIGHTS = "SELECT DISTINCT data FROM models WHERE data ->> 'weights' = $content"

_SCHEMA = pa.schema([("image_id", pa.string()), ("role", pa.string())])

_MET_SCHEMA = pa.schema(
    [("image_id", pa.string()), *((how, pa.bool_()) for how in ("image", "patient", "duplicate"))]
)


def learned_images(store: Store, data: Mapping[str, Any]) -> pa.Table:
    """The images a model was trained (role train) or chosen (role val) on.

    ``data`` is what its bundle says of them. The images of the bundle that its weights started from
    count too, and of the one before that; so do those of a bundle whose weights it took as a
    checkpoint. An image may come several times. Places are those that the splits gave when it was
    trained.
    """
    found = [store.query(_LEARNED, one) for one in _learnings(store, data)]
    return pa.concat_tables([_SCHEMA.empty_table(), *found])


def met_images(
    store: Store,
    data: Mapping[str, Any],
    *,
    dataset: str,
    split: str,
    roles: tuple[str, ...] = ("train", "val"),
) -> pa.Table:
    """The images of a split that a model has met in the ``roles``, in whichever data set that was.

    ``data`` is what its bundle says. Columns ``image_id``, and whether it learned from the very
    ``image``, from others of its ``patient``, or from a ``duplicate``: another image of its group,
    in this split or in the one it was trained by. An image may come several times.
    """
    asked = {"dataset": dataset, "split": split, "roles": list(roles)}
    found = [store.query(_MET, one | asked) for one in _learnings(store, data)]
    return pa.concat_tables([_MET_SCHEMA.empty_table(), *found])


def count_met(met: pa.Table, image_ids: pa.ChunkedArray) -> dict[str, int]:
    """How many of some images were met, by how; each counts once, in the first that holds."""
    rows = met.filter(pc.is_in(met["image_id"], value_set=image_ids.combine_chunks()))
    counts: dict[str, int] = {}
    told: set[str] = set()
    for how in ("image", "patient", "duplicate"):
        ids = set(rows.filter(rows[how])["image_id"].to_pylist()) - told
        counts[how] = len(ids)
        told |= ids
    return counts


def refuse_learned(
    store: Store, bundle: Mapping[str, Any], found: pa.Table, *, dataset: str, split: str
) -> None:
    """Stop where a model would be asked about images that it learned from.

    ``found`` has the columns ``image_id`` and ``part``. Images count, not names: a split may have
    been made anew since, or be another one. Validation images may be asked about as such. Other
    images of the patients and groups it learned from count too, unless it was trained on a split
    that leaks on purpose.

    Raises:
        LeakError: if there is such an image.
    """
    data = json.loads(bundle["data"] or "{}")
    for part, roles in (("test", ("train", "val")), ("val", ("train",))):
        asked = found.filter(pc.equal(found["part"], part))["image_id"]
        if not len(asked):
            continue
        met = met_images(store, data, dataset=dataset, split=split, roles=roles)
        counts = count_met(met, asked)
        known = counts["image"] if "leaks_allowed" in data else sum(counts.values())
        if known:
            held_out = data.get("fold")
            raise LeakError(
                "The model learned from images it would be evaluated on, or from others of their "
                "patients or near-duplicates",
                where=f"{reference(bundle)}, part {part} of {split}",
                got=f"{known} of {len(asked)} images ({counts['image']} themselves, "
                f"{counts['patient']} by their patients, {counts['duplicate']} by near-duplicates)",
                remedy=(
                    "evaluate with `parts: [test]` and the split it was trained by"
                    if held_out is None
                    else f"evaluate with `fold: {held_out}`, or with `parts: [test]`"
                )
                + "; give `patients` in `ingest` if two data sets number different people alike",
            )


def _learnings(store: Store, data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The parameters of `_LEARNED` for each training behind a bundle that was by a split."""
    for one in _trainings(store, data):
        if "split" in one:
            yield {
                "learned_dataset": one["dataset"],
                "learned_split": one["split"],
                "run": one.get("split_run"),
                "fold": one.get("fold"),
                "inner_fold": one.get("inner_fold"),
                "sites": list(one.get("sites") or ()),
            }


def _trainings(
    store: Store, data: Mapping[str, Any], seen: frozenset[str] = frozenset()
) -> Iterator[Mapping[str, Any]]:
    """The data of a bundle, then of those it started from; a start is older than what it starts.

    ``seen`` are the checkpoints on the way here: equal weights may have been written twice.
    """
    yield data
    start = data.get("start") or {}
    content = start.get("checkpoint")
    if "bundle" in start:
        name, _, version = str(start["bundle"]).partition("@")
        rows = store.query(_STARTED_FROM, {"name": name, "version": int(version)})
    elif content is not None and content not in seen:
        rows = store.query(_WITH_WEIGHTS, {"content": content})
        seen |= {content}
    else:
        return
    for told in rows["data"].to_pylist():
        yield from _trainings(store, json.loads(told or "{}"), seen)
