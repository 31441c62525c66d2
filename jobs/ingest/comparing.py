"""The listing of an archive against the catalogue."""

from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.ingest.catalogue import Catalogue, binary, flat, version_keys
from jobs.ingest.roots import source_root
from schemas.protocols import Store
from schemas.specs.ingest import IngestSpec

_CHUNK = 8_192
"""Files of the listing that are held as Python objects at once."""
_COLUMNS = {"uris": pa.binary(), "paths": pa.binary(), "sizes": pa.int64(), "etags": pa.string()}


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
    columns: dict[str, list[pa.Array]] = {name: [] for name in _COLUMNS}
    while chunk := list(islice(files, _CHUNK)):
        listed = [one for one in chunk if one.uri != left_out]
        columns["uris"].append(binary([one.uri for one in listed]))
        columns["paths"].append(binary([one.path for one in listed]))
        columns["sizes"].append(pa.array([one.bytes for one in listed], pa.int64()))
        columns["etags"].append(pa.array([one.etag for one in listed], pa.string()))
    # One column after the other, so that no more than one stands in memory twice.
    return Listing(
        *(pa.concat_arrays([pa.array([], kind), *columns.pop(name)])
          for name, kind in _COLUMNS.items())
    )  # fmt: skip


def compare(listing: Listing, catalogue: Catalogue, rejected: pa.Array) -> Changes:
    """Sort files by what happened to them since they were catalogued."""
    at = pc.index_in(listing.uris, value_set=catalogue.uris)
    same = pc.fill_null(pc.equal(listing.etags, flat(catalogue.rows["etag"].take(at))), False)
    refused = _among(listing, rejected)
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


def _among(listing: Listing, rejected: pa.Array) -> pa.Array:
    """Whether each file is rejected in the state in which it lies there."""
    if not len(rejected):
        return pa.repeat(pa.scalar(False), len(listing.uris))
    return pc.is_in(version_keys(listing.uris, listing.etags), value_set=rejected)
