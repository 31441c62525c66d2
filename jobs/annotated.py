"""Who annotated a data set, and what is marked in its images."""

from collections.abc import Sequence

from schemas.errors import SourceError
from schemas.protocols import Store

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

_SOURCES = """
SELECT DISTINCT source FROM annotated_images
WHERE image_id IN (SELECT image_id FROM current_images WHERE dataset = $dataset) ORDER BY source
"""


def sources_of(dataset: str, store: Store) -> list[str]:
    """The sources that have looked at images of a data set, sorted."""
    found: list[str] = store.query(_SOURCES, {"dataset": dataset})["source"].to_pylist()
    return found


def require_sources(dataset: str, asked: Sequence[str], store: Store) -> None:
    """Refuse sources that have looked at no image: a name is wrong, or nothing is annotated yet.

    Raises:
        SourceError: naming the sources there are.
    """
    known = sources_of(dataset, store)
    unknown = [one for one in asked if one not in known]
    if unknown:
        raise SourceError(
            "No such source has annotated the data set",
            where=dataset,
            got=", ".join(unknown),
            remedy=f"its sources: {', '.join(known) or 'none; annotate it with `kind: annotate`'}",
        )
