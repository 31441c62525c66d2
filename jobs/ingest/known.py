"""The catalogue's rows of the few files that changed or went."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.ingest.catalogue import Catalogue
from jobs.ingest.keys import NOWHERE, Hasher, Index, Keys
from jobs.ingest.names import reveal_all
from schemas.protocols import Store
from schemas.tables import TABLES
from workers.pseudonyms import Pseudonymizer

_FIELDS = [field for field in TABLES["images"].schema if field.name != "run_id"]
ROWS = pa.list_(pa.struct(_FIELDS))
"""The rows of a file, one a frame."""

_KNOWN = """
SELECT *, hash(uri) AS place FROM current_files
WHERE dataset = $dataset AND state = 'present'
    AND hash(uri) IN (SELECT unnest($places::UBIGINT[]))
ORDER BY uri, frame
"""


@dataclass(frozen=True)
class KnownFiles:
    """Files with all their present rows; arrays have a value for each row of a catalogue."""

    uris: pa.Array
    """Original uris as bytes."""
    etags: pa.Array
    rows: pa.Array
    """Of type `ROWS`."""


def read_known(
    store: Store,
    dataset: str,
    catalogue: Catalogue,
    at: pa.Array,
    pseudonymizer: Pseudonymizer,
    hasher: Hasher,
) -> KnownFiles:
    """The files in the rows ``at`` of a catalogue, in their order; null for null."""
    wanted = at.drop_null().to_numpy()
    if not len(wanted):
        return KnownFiles(*(pa.nulls(len(at), one) for one in (pa.binary(), pa.string(), ROWS)))
    places = catalogue.places[wanted]
    found = store.query(_KNOWN, {"dataset": dataset, "places": places.tolist()}).combine_chunks()
    # Rows come sorted by uri, so those of a file are one stretch, as run lengths tell.
    runs = pc.run_end_encode(_flat(found["uri"]))
    ends = pa.concat_arrays([pa.array([0], pa.int32()), runs.run_ends])
    first = found.take(ends[:-1])
    uris = reveal_all(first["uri"], pseudonymizer)
    files = Index(_exact(first["place"].to_numpy(), hasher.keys(uris)))
    rows = np.full(len(at), NOWHERE, np.int64)
    rows[pc.is_valid(at).to_numpy(zero_copy_only=False)] = files.find(
        _exact(places, catalogue.keys[wanted])
    )
    taken = pa.array(rows, mask=rows == NOWHERE)
    columns = [_flat(found[one.name]).cast(one.type) for one in _FIELDS]
    lists = pa.ListArray.from_arrays(ends, pa.StructArray.from_arrays(columns, fields=_FIELDS))
    return KnownFiles(uris.take(taken), _flat(first["etag"]).take(taken), lists.take(taken))


def _exact(places: np.ndarray, keys: Keys) -> Keys:
    """Keys of the uris as catalogued and as they were: one file may be catalogued by two names."""
    return np.column_stack([places, keys[:, 0]])


def _flat(values: pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks()
