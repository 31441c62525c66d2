"""Rows of split data sets, shared by the kinds that split, train and evaluate."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from schemas.bundle import CONFIG_FILE, DetectionSettings, parse_config
from schemas.errors import BundleError, LeakError, SplitError
from schemas.naming import reference
from schemas.protocols import Store

LATEST_SPLITS = """
    SELECT * FROM splits WHERE split_name = $split AND dataset = $dataset
    QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY run_id DESC) = 1
"""
"""An image's place in a split as it stands: splitting again writes new rows."""

ROLE = """CASE
        WHEN $fold IS NULL OR part = 'test' THEN part
        WHEN fold = $fold THEN 'test'
        WHEN fold = $inner_fold THEN 'val'
        WHEN fold IS NOT NULL THEN 'train'
        END"""
"""What an image is to a training; a fold that is held out is as good as test."""

ROLES = f"SELECT image_id, group_id, {ROLE} AS part FROM ({LATEST_SPLITS})"
"""What every image of a split is to a training."""

GROUP = "coalesce(images.patient_id, places.group_id, places.image_id)"
"""Whose image it is, for figures that treat patients as one."""

IN_PARTS = f"""image_id IN (
    SELECT image_id FROM ({LATEST_SPLITS}) WHERE CASE
        WHEN $fold IS NULL THEN list_contains($parts, part)
        ELSE part IN ('train', 'val') AND fold = $fold END)"""
"""Whether an image stands in the parts of a split that are asked for, or in the fold held out."""

_FOLDS = f"""
SELECT coalesce(max(fold) + 1, 0) AS folds FROM ({LATEST_SPLITS})
WHERE part IN ('train', 'val')
    AND image_id IN (SELECT image_id FROM current_images WHERE dataset = $dataset)
"""

_ANY_IN_PARTS = f"""
SELECT 1 FROM ({LATEST_SPLITS}) WHERE list_contains($parts, part)
    AND image_id IN (SELECT image_id FROM current_images WHERE dataset = $dataset) LIMIT 1
"""

_NEWEST_RUN = (
    "SELECT max(run_id) AS run_id FROM splits WHERE split_name = $split AND dataset = $dataset"
)

_SITES = f"""
WITH places AS ({ROLES})
SELECT images.site, count(*) AS images
FROM places JOIN current_images AS images ON images.image_id = places.image_id
WHERE images.dataset = $dataset AND places.part IN ('train', 'val')
GROUP BY images.site ORDER BY images.site NULLS LAST
"""

_LEAKS = f"""
WITH places AS ({ROLES}),
members AS (
    SELECT places.part, places.image_id, places.group_id, images.patient_ids
    FROM places JOIN current_images AS images ON images.image_id = places.image_id
    WHERE images.dataset = $dataset AND places.part IN ('train', 'val', 'test')
)
SELECT
    (SELECT count(*) FROM (
        SELECT patient FROM (SELECT unnest(patient_ids) AS patient, part FROM members)
        GROUP BY patient HAVING count(DISTINCT part) > 1)) AS patients,
    (SELECT count(*) FROM (
        SELECT image_id FROM members GROUP BY image_id HAVING count(DISTINCT part) > 1)) AS images,
    (SELECT count(*) FROM (
        SELECT group_id FROM members WHERE group_id IS NOT NULL
        GROUP BY group_id HAVING count(DISTINCT part) > 1)) AS duplicate_groups
"""


class BySplit(Protocol):
    """What a training says of the images it takes."""

    @property
    def kind(self) -> str:
        """The kind of job, for messages."""

    @property
    def dataset(self) -> str:
        """Their data set."""

    @property
    def split(self) -> str:
        """Its split."""

    @property
    def fold(self) -> int | None:
        """The fold held out, where folds take the place of parts."""

    @property
    def inner_fold(self) -> int | None:
        """The fold validated on; the one after ``fold`` when not given."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites whose images alone are taken; all when empty."""

    @property
    def allow_leaks(self) -> bool:
        """Whether a split that leaks is taken all the same."""


def count_folds(store: Store, dataset: str, split: str, asked: int) -> int:
    """Return the number of folds of a split that has the fold `asked` for.

    Raises:
        SplitError: if it has no folds, or not this one.
    """
    found = store.query(_FOLDS, {"split": split, "dataset": dataset})
    count = int(found["folds"][0].as_py())
    where = f"data set {dataset}, split {split}"
    if not count:
        raise SplitError(
            "The split has no folds",
            where=where,
            got=f"fold {asked}",
            remedy="split with `folds: 5`, say, or leave `fold` out",
        )
    if asked >= count:
        raise SplitError(
            "The split has no such fold",
            where=where,
            got=str(asked),
            remedy=f"its folds are 0 to {count - 1}",
        )
    return count


def require_split(store: Store, dataset: str, split: str, parts: Sequence[str]) -> None:
    """Refuse parts of a split without images: a name is wrong, or the split is not made yet.

    Raises:
        SplitError: if there is not one image.
    """
    asked = {"split": split, "dataset": dataset, "parts": list(parts)}
    if not store.query(_ANY_IN_PARTS, asked).num_rows:
        raise SplitError(
            "The split has no images",
            where=f"data set {dataset}, split {split}",
            got=f"none in {', '.join(parts)}",
            remedy="check the names of the data set and the split, or leave `split` out",
        )


def digest_rows(rows: pa.Table, columns: tuple[str, ...]) -> str:
    """Hash the text of some columns, row by row, into 32 hex digits."""
    state = hashlib.blake2b(digest_size=16)
    for batch in rows.select(columns).to_batches(max_chunksize=65_536):
        values = [column.to_pylist() for column in batch.columns]
        lines = ("\x1f".join(map(str, row)) for row in zip(*values, strict=True))
        state.update("\n".join(lines).encode())
        state.update(b"\n")
    return state.hexdigest()


def resolve_folds(asked: BySplit, store: Store) -> dict[str, int]:
    """The ``fold`` held out and the ``inner_fold`` validated on; empty where parts are taken.

    Raises:
        SplitError: if the split has no such fold, or fewer than three.
    """
    if asked.fold is None:
        return {}
    count = count_folds(store, asked.dataset, asked.split, max(asked.fold, asked.inner_fold or 0))
    if count < 3:
        raise SplitError(
            "Holding out a fold takes three: one held out, one to validate on, one to train on",
            where=f"data set {asked.dataset}, split {asked.split}",
            got=f"{count} folds",
            remedy="split with `folds: 3` or more",
        )
    inner = (asked.fold + 1) % count if asked.inner_fold is None else asked.inner_fold
    return {"fold": asked.fold, "inner_fold": inner}


def split_parameters(asked: BySplit, folds: Mapping[str, int]) -> dict[str, Any]:
    """The parameters of `ROLES`."""
    return {
        "split": asked.split,
        "dataset": asked.dataset,
        "fold": folds.get("fold"),
        "inner_fold": folds.get("inner_fold"),
    }


def newest_split_run(asked: BySplit, store: Store) -> str | None:
    """The newest run that gave places in the split: splitting again may move images."""
    found = store.query(_NEWEST_RUN, {"split": asked.split, "dataset": asked.dataset})
    run_id: str | None = found["run_id"][0].as_py()
    return run_id


def check_sites(asked: BySplit, store: Store, wanted: Mapping[str, Any]) -> None:
    """Refuse a site without images: it would go unnoticed beside others.

    ``wanted`` is as `split_parameters` makes it.

    Raises:
        SplitError: naming the sites there are.
    """
    if not asked.sites:
        return
    counts = {row["site"]: row["images"] for row in store.query(_SITES, wanted).to_pylist()}
    missing = [site for site in asked.sites if site not in counts]
    if missing:
        known = [f"{site or 'without a site'}: {count} images" for site, count in counts.items()]
        raise SplitError(
            "Parts train and val have no image of a site",
            where=f"data set {asked.dataset}, split {asked.split}, {asked.kind}.sites",
            got=", ".join(missing),
            remedy=f"sites there: {', '.join(known) or 'none, the split has no image'}",
        )


def count_leaks(asked: BySplit, store: Store, wanted: Mapping[str, Any]) -> dict[str, int]:
    """Patients, images and groups of duplicates that stand in more than one part.

    Looked for among the images of all sites; ``wanted`` is as `split_parameters` makes it.

    Raises:
        LeakError: if there are any, unless they are allowed.
    """
    leaks: dict[str, int]
    (leaks,) = store.query(_LEAKS, wanted).to_pylist()
    if any(leaks.values()) and not asked.allow_leaks:
        counted = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in leaks.items())
        raise LeakError(
            "The split has the same patients, images or near-duplicates in more than one part",
            where=asked.split,
            got=counted,
            remedy="split anew with `kind: split`, or set `allow_leaks: true` to train anyway",
        )
    return leaks


def detection_settings(bundle: Mapping[str, Any], store: Store) -> DetectionSettings:
    """What a bundle's detections mean, from its configuration.

    Raises:
        BundleError: if it is no detector.
    """
    uri = f"{bundle['uri']}/{CONFIG_FILE}"
    config = parse_config(store.read_source(uri), str(bundle["uri"]))
    if config.detection is None:
        raise BundleError(
            "The bundle is no detector",
            where=reference(bundle),
            got=config.family,
            remedy="name a detector; `kind: evaluate` is for classifiers",
        )
    return config.detection
