"""The inputs of a plan: one row a file, sealed, with its given facts and its catalogued rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from jobs.ingest.catalogue import FACTS, Catalogue
from jobs.ingest.comparing import Changes
from jobs.ingest.keys import Hasher
from jobs.ingest.known import ROWS, KnownFiles, read_known
from jobs.ingest.metadata import Metadata, read_metadata
from jobs.ingest.names import decode
from schemas.protocols import Store
from schemas.specs.ingest import IngestSpec
from schemas.tables import TABLES
from workers.ingest_actions import FACTS as CORRECT
from workers.ingest_actions import GONE, READ
from workers.pseudonyms import Pseudonymizer

INPUTS = pa.schema(
    [
        pa.field("uri", pa.string()),
        pa.field("etag", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("read", pa.bool_()),
        pa.field("action", pa.string()),
        pa.field("identifiers", pa.list_(pa.string())),
        *(TABLES["images"].schema.field(name).remove_metadata() for name in FACTS),
        pa.field("known", ROWS),
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
    hasher: Hasher
    metadata_file: bytes | None
    catalogue: Catalogue
    changes: Changes

    def make(self, *, check_facts: bool) -> tuple[pa.Table, Mapping[str, int]]:
        """The inputs, and what was odd about the metadata.

        Metadata is evaluated for the files to read; with ``check_facts`` also for all that did
        not change, to find those whose facts are to be corrected.
        """
        read, unchanged = self.changes.read, self.changes.unchanged
        metadata = read_metadata(
            self.spec,
            _paths(pa.concat_tables([read, unchanged])),
            self.metadata_file,
            # Only when all files are looked at can be said which rows of the file have none.
            others=_paths(self.changes.standing) if check_facts else None,
        )
        given = self._given(metadata)
        corrected, facts = self._corrections(given.slice(read.num_rows), unchanged)
        catalogued = [flat(files["catalogued"]) for files in (read, corrected)]
        known = read_known(
            self.store,
            self.dataset,
            self.catalogue,
            pa.concat_arrays([*catalogued, self.changes.gone]),
            self.pseudonymizer,
            self.hasher,
        )
        parts = [
            self._listed(READ, read, given.slice(0, read.num_rows)),
            self._listed(CORRECT, corrected, facts),
            self._gone(known),
        ]
        table = pa.concat_tables(parts).append_column("known", known.rows)
        return table.select(INPUTS.names).cast(INPUTS), metadata.findings

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

    def _corrections(self, given: pa.Table, unchanged: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Files of the listing whose facts differ, and the facts they shall have.

        What a DICOM header or an archive's arrays said stays where metadata is silent. Other
        formats have no other source, so a value taken out of the metadata goes away.
        """
        if not unchanged.num_rows or self.catalogue.facts is None:
            return unchanged, given
        was = self.catalogue.facts.take(unchanged["catalogued"])
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

    def _listed(self, action: str, files: pa.Table, facts: pa.Table) -> pa.Table:
        """Rows for files of the listing."""
        # A file beyond the limit is rejected by its size alone.
        reads = pc.and_(action == READ, pc.less_equal(files["bytes"], self.spec.max_bytes))
        columns = {
            "uri": self._sealed(files["uri"]),
            "etag": files["etag"],
            "bytes": files["bytes"],
            "read": reads,
        }
        return _fill(columns | {name: facts[name] for name in facts.column_names}, action)

    def _gone(self, known: KnownFiles) -> pa.Table:
        """Rows for files of the catalogue that are not listed, the last of those known."""
        count = len(self.changes.gone)
        first = len(known.uris) - count
        columns = {
            "uri": self._sealed(known.uris.slice(first)),
            "etag": known.etags.slice(first),
            "bytes": pa.array([0] * count, pa.int64()),
            "read": pa.array([False] * count, pa.bool_()),
        }
        return _fill(columns, GONE)

    def _sealed(self, uris: pa.Array | pa.ChunkedArray) -> pa.Array:
        sealed = [self.pseudonymizer.seal(decode(one)) for one in uris.to_pylist()]
        return pa.array(sealed, pa.string())


def _paths(files: pa.Table) -> list[str]:
    return [decode(path) for path in files["path"].to_pylist()]


def flat(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array."""
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


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
