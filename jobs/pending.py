"""The images a kind has yet to work on, shared by the kinds that work image by image."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.datasets import require_dataset
from schemas.plan import Counts
from schemas.protocols import Store
from schemas.reasons import TRANSIENT
from schemas.tables import TABLES

VIEWS: Mapping[str, str] = {"kept": "kept_images", "all": "current_images"}
"""The view of the images that a spec asks for."""
_CHOSEN = {
    "kept": "image_id IN (SELECT image_id FROM current_quality WHERE dataset = $dataset AND kept)",
    "all": "true",
}
"""The images of a view, as a condition: to count them takes less than to join all they show."""

_COUNT = """
SELECT count(*) AS total, count(*) FILTER (lacking) AS lacking,
    min(image_id, $few) FILTER (lacking) AS ids
FROM (
    SELECT image_id, NOT ({has_result}) AS lacking
    FROM current_images AS images WHERE dataset = $dataset AND {chosen} AND {among})
"""

_COLUMNS = ("image_id", "uri", "frame", "etag", "bytes")
_ROWS = """
SELECT {columns} FROM {view} AS images
WHERE dataset = $dataset AND {among} AND {lacking} AND NOT EXISTS (
    SELECT 1 FROM rejects
    WHERE NOT $retry AND stage = $stage AND list_contains($subjects, subject)
        AND rejects.image_id = images.image_id
        AND rejects.etag IS NOT DISTINCT FROM images.etag
        AND NOT list_contains($transient, reason))
ORDER BY {order}
"""

_FEW = 16_384
"""Images without a result that are named in the second query; more are looked for again."""


@dataclass(frozen=True)
class Wanted:
    """Which images of a data set a kind works on, and what counts as done."""

    dataset: str
    images: str
    """`kept`, those that cleaning kept, or `all` that are catalogued."""
    has_result: str
    """SQL over ``images.image_id`` that is true where the result is there."""
    stage: str
    """The kind, as it stands in rejects."""
    subjects: tuple[str, ...]
    """What a standing reject is of, e.g. the model."""
    retry: bool
    """Whether rejects are tried again."""
    parameters: Mapping[str, Any]
    """Parameters of ``has_result`` and ``among``."""
    among: str = "true"
    """SQL over columns of ``current_images`` that is true where an image is wanted at all."""
    order: str = "uri, frame, image_id"
    """SQL over ``images``: what is worked on first."""
    more: tuple[str, ...] = ()
    """Further columns of `images` that the work needs."""


@dataclass(frozen=True)
class Pending:
    """What there is to do, and what planning settled."""

    rows: pa.Table
    """Columns image_id, uri, frame, etag, bytes and those asked for, in the order asked for."""
    counts: Counts


def find_pending(wanted: Wanted, store: Store, key: tuple[str, ...]) -> Pending:
    """Find the images without a result.

    A reject stands until the image's bytes or its subject change, or rejects are retried, and a
    transient one not at all; images whose results wait in a held run of ``key`` are left out.

    Nearly every night, nearly nothing is open. So a first pass over few columns counts, and names
    what lacks a result; rejects are looked at, and rows read, only of those.

    Raises:
        SourceError: if the lake has no such data set.
    """
    asked = {
        "view": VIEWS[wanted.images],
        "chosen": _CHOSEN[wanted.images],
        "has_result": wanted.has_result,
        "among": f"({wanted.among})",
        "order": wanted.order,
        "columns": ", ".join((*_COLUMNS, *wanted.more)),
    }
    parameters = {
        "dataset": wanted.dataset,
        "few": _FEW,
        "stage": wanted.stage,
        "subjects": list(wanted.subjects),
        "retry": wanted.retry,
        "transient": sorted(TRANSIENT),
        **wanted.parameters,
    }
    counting = _COUNT.format(**asked)
    (counted,) = store.query(counting, _used(parameters, counting)).to_pylist()
    if not counted["total"]:
        require_dataset(wanted.dataset, store)
    if not counted["lacking"]:
        return Pending(_nothing(wanted.more), Counts(up_to_date=counted["total"]))
    lacking = f"NOT ({wanted.has_result})"
    if counted["lacking"] <= _FEW:
        lacking, parameters["ids"] = "image_id IN (SELECT unnest($ids))", counted["ids"]
    reading = _ROWS.format(**asked, lacking=lacking)
    rows = store.query(reading, _used(parameters, reading))
    waiting = pc.is_in(rows["image_id"], value_set=store.held_images(key))
    inputs = rows.filter(pc.invert(waiting))
    return Pending(
        inputs,
        Counts(up_to_date=counted["total"] - rows.num_rows, held=rows.num_rows - inputs.num_rows),
    )


def _used(parameters: Mapping[str, Any], sql: str) -> Mapping[str, Any]:
    """The parameters that a statement names; DuckDB takes no others."""
    names = set(re.findall(r"\$(\w+)", sql))
    return {name: value for name, value in parameters.items() if name in names}


def _nothing(more: tuple[str, ...]) -> pa.Table:
    """No rows, with the columns that rows have."""
    types = TABLES["images"].schema
    return pa.schema([(name, types.field(name).type) for name in (*_COLUMNS, *more)]).empty_table()
