"""The listing of an archive against the catalogue."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.ingest.catalogue import Catalogue, binary, flat, version_keys
from jobs.ingest.roots import source_root
from schemas.protocols import SourceFile, Store
from schemas.specs.ingest import IngestSpec

_CHUNK = 65_536
"""Files of the listing that are held as Python objects at once."""


@dataclass(frozen=True)
class Listing:
    """An archive as it lies there now."""

    uris: pa.Array
    """Uris as bytes."""
    paths: pa.Array
    """Paths relative to the source, as bytes."""
    sizes: pa.Array
    etags: pa.Array


@dataclass(frozen=True)
class Changes:
    """What differs between the listing and the catalogue."""

    read: pa.Array
    """Rows of the listing to read: new files and changed ones."""
    unchanged: pa.Array
    """Rows of the listing whose bytes are catalogued."""
    gone: pa.Array
    """Rows of the catalogue that are not listed."""
    catalogued: pa.Array
    """Row of the catalogue for each row of the listing, or null."""
    standing: pa.Array
    """Rows of the listing whose reject still stands."""


def list_archive(spec: IngestSpec, store: Store) -> Listing:
    """List the archive, without the metadata file."""
    left_out = source_root(spec.metadata.file) if spec.metadata else None
    files = iter(store.list_source(spec.source))
    chunks: list[pa.RecordBatch] = []
    while chunk := list(islice(files, _CHUNK)):
        chunks.append(_batch([one for one in chunk if one.uri != left_out]))
    names = ["uris", "paths", "sizes", "etags"]
    kinds = [pa.binary(), pa.binary(), pa.int64(), pa.string()]
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    table = pa.Table.from_batches(chunks, schema)
    return Listing(*(flat(table[name]) for name in names))


def _batch(files: Sequence[SourceFile]) -> pa.RecordBatch:
    return pa.record_batch(
        {
            "uris": binary([one.uri for one in files]),
            "paths": binary([one.path for one in files]),
            "sizes": pa.array([one.bytes for one in files], pa.int64()),
            "etags": pa.array([one.etag for one in files], pa.string()),
        }
    )


def compare(listing: Listing, catalogue: Catalogue, rejected: pa.Array) -> Changes:
    """Sort files by what happened to them since they were catalogued."""
    at = pc.index_in(listing.uris, value_set=catalogue.uris)
    same = pc.fill_null(pc.equal(listing.etags, flat(catalogue.rows["etag"]).take(at)), False)
    refused = pc.is_in(version_keys(listing.uris, listing.etags), value_set=rejected)
    read = pc.invert(pc.or_(same, refused))
    listed = np.zeros(len(catalogue.uris), np.bool_)
    listed[at.drop_null().to_numpy()] = True
    return Changes(
        read=pc.indices_nonzero(read),
        unchanged=pc.indices_nonzero(same),
        gone=pc.indices_nonzero(pa.array(~listed)),
        catalogued=at,
        standing=pc.indices_nonzero(pc.and_not(refused, same)),
    )
