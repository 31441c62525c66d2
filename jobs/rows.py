"""Rows of split data sets, shared by the kinds that split, train and evaluate."""

import hashlib
from collections.abc import Sequence

import pyarrow as pa

from jobs.datasets import require_dataset
from schemas.errors import SplitError
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
SELECT 1 FROM ({LATEST_SPLITS}) WHERE list_contains($parts, part) LIMIT 1
"""

_PARTS = """
SELECT split_name, list_sort(list(DISTINCT part)) AS parts FROM splits
WHERE dataset = $dataset AND part IS NOT NULL GROUP BY split_name ORDER BY split_name
"""


def count_folds(store: Store, dataset: str, split: str, asked: int) -> int:
    """Return the number of folds of a split that has the fold `asked` for.

    Raises:
        SourceError: if the lake has no such data set.
        SplitError: if it has no folds, or not this one.
    """
    found = store.query(_FOLDS, {"split": split, "dataset": dataset})
    count = int(found["folds"][0].as_py())
    where = f"data set {dataset}, split {split}"
    if not count:
        require_dataset(dataset, store)
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

    Images that are gone have their places all the same.

    Raises:
        SourceError: if the lake has no such data set.
        SplitError: if there is not one image.
    """
    asked = {"split": split, "dataset": dataset, "parts": list(parts)}
    if not store.query(_ANY_IN_PARTS, asked).num_rows:
        require_dataset(dataset, store)
        raise SplitError(
            "The split has no images",
            where=f"data set {dataset}, split {split}",
            got=f"none in {', '.join(parts)}",
            remedy=f"splits of the data set: {_known_splits(store, dataset)}",
        )


def _known_splits(store: Store, dataset: str) -> str:
    known = store.query(_PARTS, {"dataset": dataset}).to_pylist()
    told = [f"{row['split_name']} ({', '.join(row['parts'])})" for row in known]
    return ", ".join(told) or "none; make one with `kind: split`"


def digest_rows(rows: pa.Table, columns: tuple[str, ...]) -> str:
    """Hash the text of some columns, row by row, into 32 hex digits."""
    state = hashlib.blake2b(digest_size=16)
    for batch in rows.select(columns).to_batches(max_chunksize=65_536):
        values = [column.to_pylist() for column in batch.columns]
        lines = ("\x1f".join(map(str, row)) for row in zip(*values, strict=True))
        state.update("\n".join(lines).encode())
        state.update(b"\n")
    return state.hexdigest()
