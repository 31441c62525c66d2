"""The listing of an archive against the catalogue, as it comes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.ingest.catalogue import Catalogue, etag_keys, version_keys
from jobs.ingest.keys import NOWHERE, Hasher, Index, Keys
from jobs.ingest.names import encode
from jobs.ingest.patterns import Patterns
from jobs.ingest.roots import source_root
from schemas.errors import SourceError
from schemas.protocols import LISTING, Store
from schemas.specs.ingest import IngestSpec

_LISTED = LISTING.append(pa.field("catalogued", pa.int64()))
"""Files of the listing, and the row of the catalogue of each, or null."""


@dataclass(frozen=True)
class Changes:
    """What differs between the listing and the catalogue; tables have the columns of `_LISTED`."""

    read: pa.Table
    """Files to read: new ones and changed ones."""
    unchanged: pa.Table
    """Files whose bytes are catalogued; none unless they were asked for."""
    standing: pa.Table
    """Files whose reject still stands; none unless they were asked for."""
    unchanged_count: int
    standing_count: int
    gone: pa.Array
    """Rows of the catalogue that are not listed."""


class Listing:
    """The archive as it lies there now, without the metadata file and what patterns leave out."""

    def __init__(self, spec: IngestSpec, store: Store) -> None:
        self._spec, self._store = spec, store
        self._patterns = Patterns(spec.include, spec.exclude)
        self.left_out = 0
        """Files that patterns left out so far."""

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Batches with the columns of `LISTING`.

        Raises:
            SourceError: if the patterns leave nothing.
        """
        spec, wanted = self._spec, 0
        metadata_file = encode(source_root(spec.metadata.file)) if spec.metadata else b""
        for every in self._store.list_batches(spec.source):
            files = every.filter(pc.not_equal(every["uri"], metadata_file))
            if self._patterns:
                chosen = files.filter(self._patterns.wants(files["path"]))
                self.left_out += files.num_rows - chosen.num_rows
                files = chosen
            wanted += files.num_rows
            yield files
        if self.left_out and not wanted:
            raise SourceError(
                "The patterns leave out every file of the source",
                where=source_root(spec.source),
                got=f"{self.left_out} files, none of them wanted",
                remedy="check `include` and `exclude`: they are matched with paths relative to "
                "`source`",
            )


def compare(
    listing: Iterable[pa.RecordBatch],
    catalogue: Catalogue,
    rejected: Keys,
    hasher: Hasher,
    *,
    keep_all: bool,
) -> Changes:
    """Sort files by what happened to them since they were catalogued.

    Only files to read stay in memory; with ``keep_all`` the others too.
    """
    catalogued, refusals = Index(catalogue.keys), Index(rejected)
    listed = np.zeros(len(catalogue), np.bool_)
    parts: list[list[pa.RecordBatch]] = [[], [], []]
    counts = np.zeros(3, np.int64)
    for files in listing:
        at = catalogued.find(hasher.keys(files["uri"]))
        known = at != NOWHERE
        listed[at[known]] = True
        same = known.copy()
        same[known] = catalogue.etags[at[known]] == etag_keys(hasher, files["etag"])[known]
        refused = np.zeros(len(at), np.bool_)
        if len(rejected):
            versions = version_keys(hasher, files["uri"], files["etag"])
            refused = (refusals.find(versions) != NOWHERE) & ~same
        rows = files.append_column("catalogued", pa.array(at, mask=~known))
        for number, chosen in enumerate((~(same | refused), same, refused)):
            counts[number] += np.count_nonzero(chosen)
            if chosen.any() and (keep_all or number == 0):
                parts[number].append(rows.filter(pa.array(chosen)))
    read, unchanged, standing = (pa.Table.from_batches(one, _LISTED) for one in parts)
    return Changes(
        read=read,
        unchanged=unchanged,
        standing=standing,
        unchanged_count=int(counts[1]),
        standing_count=int(counts[2]),
        gone=pa.array(np.flatnonzero(~listed)),
    )
