"""The inputs of a plan: one row a file, sealed, with its given facts and its catalogued rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from jobs.ingest.catalogue import FACTS, Catalogue, decode, flat, read_known
from jobs.ingest.comparing import Changes, Listing
from jobs.ingest.metadata import Metadata, read_metadata
from schemas.protocols import Store
from schemas.specs.ingest import IngestSpec
from schemas.tables import TABLES
from workers.ingest_actions import FACTS as CORRECT
from workers.ingest_actions import GONE, READ
from workers.pseudonyms import Pseudonymizer

_KNOWN = [field for field in TABLES["images"].schema if field.name != "run_id"]

INPUTS = pa.schema(
    [
        pa.field("uri", pa.string()),
        pa.field("etag", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("read", pa.bool_()),
        pa.field("action", pa.string()),
        pa.field("identifiers", pa.list_(pa.string())),
        *(TABLES["images"].schema.field(name).remove_metadata() for name in FACTS),
        pa.field("known", pa.list_(pa.struct(_KNOWN))),
    ]
)
"""Columns of the plan's inputs, one row a file.

``uri`` and ``identifiers`` are sealed, because plans lie in the lake. ``read`` says whether the
bytes are wanted, ``action`` what to do (`workers.ingest_actions`). The facts are those that
metadata gives; for corrections those that the rows shall have. ``known`` holds the catalogue's
present rows of the file.
"""


@dataclass(frozen=True)
class InputMaker:
    """Makes the rows to work on: files to read, corrected facts, gone files."""

    spec: IngestSpec
    store: Store
    dataset: str
    pseudonymizer: Pseudonymizer
    metadata_file: bytes | None
    listing: Listing
    catalogue: Catalogue
    changes: Changes

    def make(self, *, check_facts: bool) -> tuple[pa.Table, Mapping[str, int]]:
        """The inputs, and what was odd about the metadata.

        Metadata is evaluated for the files to read; with ``check_facts`` also for all that did
        not change, to find those whose facts are to be corrected.
        """
        reads, unchanged = self.changes.read, self.changes.unchanged
        if not check_facts:
            unchanged = unchanged.slice(0, 0)
        looked_at = pa.concat_arrays([reads, unchanged])
        metadata = read_metadata(
            self.spec,
            self._paths(looked_at),
            self.metadata_file,
            # Only when all files are looked at can be said which rows of the file have none.
            others=self._paths(self.changes.standing) if check_facts else None,
        )
        given = self._given(metadata)
        corrected, facts = self._corrections(given.slice(len(reads)), unchanged)
        parts = [
            self._listed(READ, reads, given.slice(0, len(reads))),
            self._listed(CORRECT, corrected, facts),
            self._gone(),
        ]
        catalogued = pa.concat_arrays(
            [
                self.changes.catalogued.take(reads),
                self.changes.catalogued.take(corrected),
                self.changes.gone.cast(self.changes.catalogued.type),
            ]
        )
        known = self._known(flat(self.catalogue.rows["uri"].take(catalogued)))
        table = pa.concat_tables(parts).append_column("known", known)
        return table.select(INPUTS.names).cast(INPUTS), metadata.findings

    def _paths(self, at: pa.Array) -> list[str]:
        return [decode(path) for path in self.listing.paths.take(at).to_pylist()]

    def _given(self, metadata: Metadata) -> pa.Table:
        """Given facts by column of `images`, and the sealed identifiers behind them."""
        columns = {name: metadata.columns[name] for name in FACTS if name != "patient_id"}
        numbers = metadata.columns["patient"]
        columns["patient_id"] = _map(
            numbers, partial(self.pseudonymizer.patient, numbering=self.spec.patients)
        )
        sealed = [_map(one, self.pseudonymizer.seal).to_pylist() for one in metadata.identifiers]
        count = len(columns["patient_id"])
        rows = zip(*sealed, strict=True) if sealed else [()] * count
        tokens = [list(dict.fromkeys(one for one in row if one)) for row in rows]
        columns["identifiers"] = pa.array(tokens, pa.list_(pa.string()))
        return pa.table(columns)

    def _corrections(self, given: pa.Table, unchanged: pa.Array) -> tuple[pa.Array, pa.Table]:
        """Rows of the listing whose facts differ, and the facts they shall have.

        What a DICOM header or an archive's arrays said stays where metadata is silent. Other
        formats have no other source, so a value taken out of the metadata goes away.
        """
        if not len(unchanged):
            return unchanged, given
        was = self.catalogue.rows.take(self.changes.catalogued.take(unchanged)).combine_chunks()
        is_dicom = pc.equal(flat(was["format"]), "dicom")
        is_npz = pc.equal(flat(was["format"]), "npz")
        differs = pa.array([False] * given.num_rows, pa.bool_())
        shall = {name: given[name] for name in given.column_names}
        for name in FACTS:
            new, old = flat(given[name]), flat(was[name])
            keeps = is_npz if name in ("label", "split") else is_dicom
            merged = pc.if_else(keeps, pc.coalesce(new, old), new)
            if name == "modality" and self.spec.modality is not None:
                merged = pc.fill_null(merged, self.spec.modality)
            both_null = pc.and_(pc.is_null(merged), pc.is_null(old))
            equal = pc.or_(pc.fill_null(pc.equal(merged, old), False), both_null)
            differs = pc.or_(differs, pc.invert(equal))
            # The arrays of an archive speak frame by frame, which the shard function knows.
            shall[name] = pc.if_else(is_npz, new, merged) if name in ("label", "split") else merged
        at = pc.indices_nonzero(differs)
        return unchanged.take(at), pa.table(shall).take(at)

    def _listed(self, action: str, at: pa.Array, facts: pa.Table) -> pa.Table:
        """Rows for files of the listing."""
        sizes = self.listing.sizes.take(at)
        # A file beyond the limit is rejected by its size alone.
        reads = pc.and_(action == READ, pc.less_equal(sizes, self.spec.max_bytes))
        columns = {
            "uri": self._sealed(self.listing.uris.take(at)),
            "etag": self.listing.etags.take(at),
            "bytes": sizes,
            "read": reads,
        }
        return _fill(columns | {name: facts[name] for name in facts.column_names}, action)

    def _gone(self) -> pa.Table:
        """Rows for files of the catalogue that are not listed."""
        at = self.changes.gone
        columns = {
            "uri": self._sealed(self.catalogue.uris.take(at)),
            "etag": flat(self.catalogue.rows["etag"].take(at)),
            "bytes": pa.array([0] * len(at), pa.int64()),
            "read": pa.array([False] * len(at), pa.bool_()),
        }
        return _fill(columns, GONE)

    def _sealed(self, uris: pa.Array) -> pa.Array:
        return pa.array([self.pseudonymizer.seal(decode(one)) for one in uris.to_pylist()])

    def _known(self, uris: pa.Array) -> pa.Array:
        """For each catalogued uri (or null) the list of its present rows, as structs."""
        wanted = uris.drop_null()
        if not len(wanted):
            return pa.nulls(len(uris), INPUTS.field("known").type)
        names = [field.name for field in _KNOWN]
        rows = read_known(self.store, self.dataset, wanted).select(names).cast(pa.schema(_KNOWN))
        # Rows come sorted by uri, so those of a file are one stretch, as run lengths tell.
        runs = pc.run_end_encode(flat(rows["uri"]))
        columns = [flat(rows[name]) for name in names]
        lists = pa.ListArray.from_arrays(
            pa.concat_arrays([pa.array([0], pa.int32()), runs.run_ends]),
            pa.StructArray.from_arrays(columns, fields=_KNOWN),
        )
        return lists.take(pc.index_in(uris, value_set=runs.values))


def _map(values: pa.Array | pa.ChunkedArray, function: Callable[[str], str]) -> pa.Array:
    """Apply a function to each distinct value once; null stays null."""
    coded = flat(values).dictionary_encode()
    made = pa.array([function(one) for one in coded.dictionary.to_pylist()], pa.string())
    return made.take(coded.indices)


def _fill(columns: Mapping[str, pa.Array | pa.ChunkedArray], action: str) -> pa.Table:
    """Rows with all columns of the inputs but ``known``; those not given are null."""
    count = len(columns["uri"])
    given = {**columns, "action": pa.array([action] * count, pa.string())}
    schema = pa.schema([field for field in INPUTS if field.name != "known"])
    nulls = {field.name: pa.nulls(count, field.type) for field in schema}
    return pa.table({**nulls, **given}).select(schema.names).cast(schema)
