"""The images of a data set as COCO files number and name them."""

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from schemas.protocols import Store

NUMBERED = """
    SELECT image_id, uri, CASE WHEN count(*) OVER (PARTITION BY uri) > 1 THEN frame END AS frame,
        width, height, patient_id, age, sex, label,
        row_number() OVER (ORDER BY uri, current_images.frame, image_id) AS number
    FROM current_images WHERE dataset = $dataset
"""
"""Numbers are of the whole data set, so that they are the same in every part of it. The frame is
null where a file has but one."""

_ENDS = "SELECT min(uri) AS first, max(uri) AS last FROM current_images WHERE dataset = $dataset"


def folder_of(dataset: str, store: Store) -> str | None:
    """The deepest folder that holds every file of a data set, with the slash at its end.

    It is empty where the files have no folder in common, and None where there are no files.
    """
    ends: Mapping[str, Any]
    (ends,) = store.query(_ENDS, {"dataset": dataset}).to_pylist()
    if ends["first"] is None:
        return None
    # What the first and the last in order begin with, all between them begin with.
    shared = posixpath.commonprefix([ends["first"], ends["last"]])
    return str(shared[: shared.rfind("/") + 1])


def with_file_names(rows: pa.Table, folder: str) -> pa.Table:
    """The rows with ``file_name``, the path below the folder, in place of ``uri``."""
    uris: Sequence[str] = rows["uri"].to_pylist()
    names = pa.array([uri.removeprefix(folder) for uri in uris], pa.string())
    return rows.drop_columns(["uri"]).append_column("file_name", names)
