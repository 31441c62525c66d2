"""Which images a model learned from, and what a training starts from, shared by several kinds."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from jobs.rows import LATEST_SPLITS, ROLE, BySplit, split_parameters
from schemas.bundle import WEIGHTS_FILE, digest
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

_BUNDLE = "bundle:"

_TESTED = f"""
SELECT image_id FROM (SELECT image_id, {ROLE} AS role FROM ({LATEST_SPLITS}))
WHERE role = 'test'
"""

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


class Starting(BySplit, Protocol):
    """A training that may start from weights."""

    @property
    def start(self) -> str:
        """none, pretrained, ``bundle:NAME`` or the path of a safetensors file."""


CheckFit = Callable[[Mapping[str, Any], str, Mapping[str, Any]], None]
"""Raises where a bundle (its row, its name and version, what it says of its data) does not fit."""


@dataclass(frozen=True)
class Start:
    """Where a training's first weights come from."""

    told: Mapping[str, Any]
    """What the model card says of it."""
    identity: str | None = None
    """What of it the result depends on: a checkpoint's content, or a bundle's ``model_id``."""
    uri: str | None = None
    """A safetensors file."""
    bundle: Mapping[str, Any] = field(default_factory=dict)
    """The row of `models` and the ``uri``, where it is a bundle."""
    leaks: int = 0
    """Images to test on that the start has learned from, or from others of their patients or
    groups of near-duplicates."""


def find_start(asked: Starting, store: Store, folds: Mapping[str, int], check: CheckFit) -> Start:
    """Find what a training starts from; ``folds`` are the fold held out and the one validated on.

    Raises:
        BundleError: if there is no such bundle, or ``check`` finds that it does not fit.
        LeakError: if the bundle, or the one whose weights a checkpoint is, learned from images that
            this training is to be tested on, or from others of their patients or groups of
            near-duplicates, unless that is allowed.
    """
    if asked.start == "none":
        return Start({"weights": "random"})
    if asked.start == "pretrained":
        return Start({"weights": "timm's pretrained ones"})
    if not asked.start.startswith(_BUNDLE):
        content = _content_of(asked.start, store)
        checkpoint: dict[str, Any] = {"checkpoint": content}
        # A file may be a copy of a bundle's weights, and then learned what that bundle did.
        leaks = _count_start_leaks(asked, store, "a checkpoint", {"start": checkpoint}, folds)
        return Start(checkpoint, content, asked.start, leaks=leaks)
    bundle = store.bundle(asked.start.removeprefix(_BUNDLE))
    name = f"{bundle['name']}@{bundle['version']}"
    data = json.loads(bundle["data"] or "{}")
    check(bundle, name, data)
    return Start(
        told={"bundle": name, "model_id": bundle["model_id"]},
        identity=str(bundle["model_id"]),
        uri=f"{bundle['uri']}/{WEIGHTS_FILE}",
        bundle=bundle,
        leaks=_count_start_leaks(asked, store, name, data, folds),
    )


def _content_of(uri: str, store: Store) -> str:
    """The hash of a checkpoint; a study plans many trainings that start from the same one."""
    files = list(itertools.islice(store.list_source(uri), 2))
    if len(files) != 1:
        return digest(store.read_source(uri))
    return _hashed(store.read_source, uri, files[0].bytes, files[0].etag)


@lru_cache(maxsize=64)
def _hashed(read: Callable[[str], bytes], uri: str, size: int, etag: str) -> str:
    """Hash a file once for each of its states, which ``size`` and ``etag`` tell apart."""
    return digest(read(uri))


def _count_start_leaks(
    asked: BySplit, store: Store, name: str, data: Mapping[str, Any], folds: Mapping[str, int]
) -> int:
    """Images a training is to be tested on that its start has learned from.

    Others of their patients or groups of near-duplicates count too. ``data`` is what the start's
    bundle ``name`` says of its own; ``folds`` as `jobs.rows.resolve_folds` found them.

    Raises:
        LeakError: if there are any, unless leaks are allowed.
    """
    met = met_images(store, data, dataset=asked.dataset, split=asked.split)
    if not met.num_rows:
        return 0
    tested = store.query(_TESTED, split_parameters(asked, folds))["image_id"]
    counts = count_met(met, tested)
    count = sum(counts.values())
    if count and not asked.allow_leaks:
        held_out = "the test part" if asked.fold is None else f"the test part and fold {asked.fold}"
        alike = "" if asked.fold is None else f" with `fold: {asked.fold}`"
        raise LeakError(
            f"The start bundle learned from images of {held_out}, or of their patients",
            where=f"{name}, split {asked.split}",
            got=f"{count} images ({counts['image']} themselves, {counts['patient']} by their "
            f"patients, {counts['duplicate']} by near-duplicates)",
            remedy=f"start from a bundle trained by this split{alike}; give `patients` in `ingest` "
            "if two data sets number different people alike; or set `allow_leaks: true` to train "
            "anyway",
        )
    return count


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
