"""Which data sets a lake has."""

from schemas.errors import SourceError
from schemas.jobtree import hint
from schemas.protocols import Store

_ANY = "SELECT 1 FROM images WHERE dataset = $dataset LIMIT 1"
_KNOWN = "SELECT DISTINCT dataset FROM images WHERE dataset IS NOT NULL ORDER BY dataset"


def require_dataset(dataset: str, store: Store) -> None:
    """Refuse a data set that was never ingested: its name is wrong, or that has yet to happen.

    One whose images are all gone, or were all rejected, is a data set all the same.

    Raises:
        SourceError: naming the data sets there are.
    """
    if store.query(_ANY, {"dataset": dataset}).num_rows:
        return
    if store.last_run(("ingest", dataset)) is not None:
        return
    known = store.query(_KNOWN)["dataset"].to_pylist()
    raise SourceError(
        f"The lake has no such data set{hint(dataset, known)}",
        where=store.root,
        got=dataset,
        remedy=f"its data sets: {', '.join(known) or 'none; ingest one with `kind: ingest`'}",
    )
