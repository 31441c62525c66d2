"""Who annotated a data set, which images that leaves, and what is marked in them."""

from collections.abc import Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import SourceError
from schemas.protocols import Store

LESION = "lesion"
"""The one class that all categories may be merged into."""

MARKED = """
    SELECT image_id, list({
        'category': category, 'x': x, 'y': y, 'w': w, 'h': h, 'area': coalesce(area, w * h),
        'ignored': coalesce(iscrowd, false) OR source != $source
    } ORDER BY source != $source, x, y, w, h, category) AS marks
    FROM current_annotations
    WHERE list_contains($sources, source) AND w > 0 AND h > 0 GROUP BY image_id
"""
"""By image its ``marks``, px of the original: boxes of ``$source``; those of the other ``$sources``
are ignored regions, and so are crowds."""

Images = Literal["annotated", "all"]
"""Which images a job takes: those that the source has looked at, or also those it does not name."""

_ANNOTATED, _REJECTED, _UNNAMED = "annotated", "rejected", "unnamed"

# What a source's newest run wrote of an image stands: a reject is over once the image is annotated,
# and also where it was annotated and then left out of the source.
_STANDING_REJECTS = """
    SELECT image_id FROM (
        SELECT image_id, max(run_id) AS run_id FROM rejects
        WHERE stage = 'annotate' AND subject = $source AND image_id IS NOT NULL GROUP BY image_id
    ) AS refused LEFT JOIN (
        SELECT image_id, max(run_id) AS run_id FROM annotations
        WHERE source = $source GROUP BY image_id
    ) AS written USING (image_id)
    WHERE written.run_id IS NULL OR refused.run_id >= written.run_id
"""

_SOURCES = """
SELECT DISTINCT source FROM annotated_images
WHERE image_id IN (SELECT image_id FROM current_images WHERE dataset = $dataset) ORDER BY source
"""


def annotation_of(image_id: str) -> str:
    """SQL of what became of the image that an expression names, for `is_taken` and `left_out`.

    It is ``annotated``, ``rejected`` or ``unnamed`` by ``$source``. A transient reject takes
    nothing from an image that is annotated.
    """
    return f"""CASE
        WHEN {image_id} IN (SELECT image_id FROM annotated_images WHERE source = $source)
            THEN '{_ANNOTATED}'
        WHEN {image_id} IN ({_STANDING_REJECTS}) THEN '{_REJECTED}'
        ELSE '{_UNNAMED}' END"""


def is_taken(annotation: pa.ChunkedArray, images: Images) -> pa.ChunkedArray:
    """Which images count, of a column that `annotation_of` made.

    An image whose annotation was rejected never does: something may be marked in it, and nobody
    knows where.
    """
    if images == "all":
        return pc.not_equal(annotation, _REJECTED)
    return pc.equal(annotation, _ANNOTATED)


def left_out(annotation: pa.ChunkedArray, images: Images) -> dict[str, int]:
    """How many images do not count, by cause, for a plan's facts."""
    unnamed, rejected = (
        int(pc.sum(pc.equal(annotation, one)).as_py() or 0) for one in (_UNNAMED, _REJECTED)
    )
    return {
        "not annotated": 0 if images == "all" else unnamed,
        "annotation rejected": rejected,
    }


def sources_of(dataset: str, store: Store) -> list[str]:
    """The sources that have looked at images of a data set, sorted."""
    found: list[str] = store.query(_SOURCES, {"dataset": dataset})["source"].to_pylist()
    return found


def choose_source(dataset: str, asked: str | None, store: Store) -> str | None:
    """The source asked for, or else the only one there is; None where there is none at all.

    Raises:
        SourceError: if the one asked for has looked at no image, or if there are several to choose
            from; names those there are.
    """
    known = sources_of(dataset, store)
    if asked is not None:
        _refuse_unknown(dataset, [asked], known)
        return asked
    if len(known) > 1:
        raise SourceError(
            "Several sources have annotated the data set",
            where=dataset,
            got=", ".join(known),
            remedy="name one of them as the source",
        )
    return known[0] if known else None


def require_sources(dataset: str, asked: Sequence[str], store: Store) -> None:
    """Refuse sources that have looked at no image: a name is wrong, or nothing is annotated yet.

    Raises:
        SourceError: naming the sources there are.
    """
    _refuse_unknown(dataset, asked, sources_of(dataset, store))


def _refuse_unknown(dataset: str, asked: Sequence[str], known: Sequence[str]) -> None:
    unknown = [one for one in asked if one not in known]
    if unknown:
        raise SourceError(
            "No such source has annotated the data set",
            where=dataset,
            got=", ".join(unknown),
            remedy=f"its sources: {', '.join(known) or 'none; annotate it with `kind: annotate`'}",
        )
