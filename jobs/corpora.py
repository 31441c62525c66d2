"""What trainings take of a split: images by their role, and whether it leaks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from jobs.datasets import require_dataset
from jobs.rows import GROUP, ROLES, count_folds
from schemas.errors import LeakError, SplitError
from schemas.protocols import Store

_ROWS = f"""
WITH places AS ({ROLES})
SELECT places.image_id, images.uri, images.frame, images.etag, images.bytes, places.part,
    {{columns}}, {GROUP} AS "group"
FROM places JOIN current_images AS images ON images.image_id = places.image_id
WHERE images.dataset = $dataset AND places.part IN ('train', 'val')
    AND (len(CAST($sites AS VARCHAR[])) = 0 OR list_contains($sites, images.site))
ORDER BY places.image_id
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
    SELECT places.part, places.group_id, images.patient_ids
    FROM places JOIN current_images AS images ON images.image_id = places.image_id
    WHERE images.dataset = $dataset AND places.part IN ('train', 'val', 'test')
)
SELECT
    (SELECT count(*) FROM (
        SELECT patient FROM (SELECT unnest(patient_ids) AS patient, part FROM members)
        GROUP BY patient HAVING count(DISTINCT part) > 1)) AS patients,
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


@dataclass(frozen=True)
class Placed:
    """What a split says of the images that a training takes."""

    leaks: Mapping[str, int]
    """Patients and groups of duplicates that stand in more than one part."""
    folds: Mapping[str, int]
    """The ``fold`` held out and the ``inner_fold`` validated on; empty where parts are taken."""
    split_run: str | None
    """The newest run that gave places in the split: splitting again may move images."""


def read_placed(
    asked: BySplit, store: Store, columns: str, parameters: Mapping[str, Any] | None = None
) -> tuple[pa.Table, Placed]:
    """Read the images of parts train and val, of the asked sites alone if there are some.

    An image that lies under several uris has the site of the first uri that has one. Leaks are
    looked for among the images of all sites and parts. Rows have the columns ``image_id, uri,
    frame, etag, bytes, part``, those that the SQL text ``columns`` selects from ``images`` and
    ``places`` with their ``parameters``, and ``group``.

    Raises:
        LeakError: if a patient or group of duplicates stands in two parts, unless that is allowed.
        SourceError: if the lake has no such data set.
        SplitError: if the split has no such fold, or no image of a site.
    """
    require_dataset(asked.dataset, store)
    folds = resolve_folds(asked, store)
    wanted = split_parameters(asked, folds)
    _check_sites(asked, store, wanted)
    query = _ROWS.format(columns=columns)
    rows = store.query(query, {**wanted, "sites": list(asked.sites), **(parameters or {})})
    placed = Placed(_count_leaks(asked, store, wanted), folds, _newest_run(asked, store))
    return rows, placed


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


def _newest_run(asked: BySplit, store: Store) -> str | None:
    """The newest run that gave places in the split: splitting again may move images."""
    found = store.query(_NEWEST_RUN, {"split": asked.split, "dataset": asked.dataset})
    run_id: str | None = found["run_id"][0].as_py()
    return run_id


def _check_sites(asked: BySplit, store: Store, wanted: Mapping[str, Any]) -> None:
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


def _count_leaks(asked: BySplit, store: Store, wanted: Mapping[str, Any]) -> dict[str, int]:
    """Patients and groups of duplicates that stand in more than one part.

    Looked for among the images of all sites; ``wanted`` is as `split_parameters` makes it.

    Raises:
        LeakError: if there are any, unless they are allowed.
    """
    leaks: dict[str, int]
    (leaks,) = store.query(_LEAKS, wanted).to_pylist()
    if any(leaks.values()) and not asked.allow_leaks:
        counted = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in leaks.items())
        raise LeakError(
            "The split has the same patients or near-duplicates in more than one part",
            where=asked.split,
            got=counted,
            remedy="split anew with `kind: split`, or set `allow_leaks: true` to train anyway",
        )
    return leaks
