"""What the lake knows of an archive: the present files, their facts, and the standing rejects."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs.ingest.keys import Hasher, Keys
from jobs.ingest.names import encode, reveal_all
from schemas.protocols import Store
from workers.pseudonyms import MARK, Pseudonymizer

FACTS = (
    *("patient_id", "age", "sex", "site", "view", "label", "split", "modality", "study_date"),
)  # fmt: skip
"""Columns of `images` that metadata can give."""


_PRESENT = """
SELECT uri, etag, hash(uri) AS place{facts} FROM current_files
WHERE dataset = $dataset AND frame = 0 AND state = 'present'
"""

_REJECTED = """
SELECT DISTINCT uri, etag FROM rejects
WHERE stage = 'ingest' AND subject = $subject AND NOT list_contains($transient, reason)
"""

_ANY_PSEUDONYM = f"""
SELECT 1 AS one FROM images WHERE patient_id IS NOT NULL OR contains(uri, '{MARK}') LIMIT 1
"""

_BATCH_ROWS = 32_768
"""Rows of the catalogue that are in memory at once."""


@dataclass(frozen=True)
class Catalogue:
    """The present files of a data set below one root, a row each.

    Names of a million files would fill the memory, so keys stand for them.
    """

    keys: Keys
    """Of the original uris."""
    etags: NDArray[np.uint64]
    """Keys of 64 bits: they are only ever compared with that of the same file."""
    places: NDArray[np.uint64]
    """DuckDB's hash of the uri as it is catalogued, by which its rows are found again."""
    facts: pa.Table | None
    """Column `format` and the facts, where asked for."""

    def __len__(self) -> int:
        return len(self.keys)


def read_catalogue(
    store: Store,
    dataset: str,
    root: str,
    pseudonymizer: Pseudonymizer,
    hasher: Hasher,
    *,
    with_facts: bool,
) -> Catalogue:
    """The files of ``dataset`` below ``root`` that were present when they were last seen."""
    wanted = ("format", *FACTS) if with_facts else ()
    keys, etags = [np.empty((0, 2), np.uint64)], [np.empty(0, np.uint64)]
    places, facts = [np.empty(0, np.uint64)], []
    sql = _PRESENT.format(facts="".join(f", {name}" for name in wanted))
    with store.batches(sql, {"dataset": dataset}, rows=_BATCH_ROWS) as batches:
        for batch in batches:
            uris = reveal_all(batch["uri"], pseudonymizer)
            below = _below(uris, root)
            rows = batch.filter(below)
            keys.append(hasher.keys(uris.filter(below)))
            etags.append(etag_keys(hasher, rows["etag"]))
            places.append(rows["place"].to_numpy())
            facts.append(rows.select(list(wanted)))
    table = pa.Table.from_batches(facts) if facts and with_facts else None
    return Catalogue(np.concatenate(keys), np.concatenate(etags), np.concatenate(places), table)


def read_rejected(
    store: Store,
    subject: str,
    transient: Sequence[str],
    pseudonymizer: Pseudonymizer,
    hasher: Hasher,
) -> Keys:
    """The `version_keys` of files whose reject still stands."""
    rows = store.query(_REJECTED, {"subject": subject, "transient": list(transient)})
    rows = rows.combine_chunks()
    uris = reveal_all(rows["uri"], pseudonymizer)
    return version_keys(hasher, uris, rows["etag"].combine_chunks())


def has_pseudonyms(store: Store) -> bool:
    """Whether the lake holds pseudonyms already, so that a new key would contradict them."""
    return bool(store.query(_ANY_PSEUDONYM).num_rows)


def version_keys(hasher: Hasher, uris: pa.Array, etags: pa.Array) -> Keys:
    """Keys of files in one state each."""
    etags = pc.fill_null(etags.cast(pa.binary()), b"")
    return hasher.keys(pc.binary_join_element_wise(uris, etags, b"\0"))


def etag_keys(hasher: Hasher, etags: pa.Array) -> NDArray[np.uint64]:
    """Keys of 64 bits."""
    return hasher.keys(pc.fill_null(etags, "").cast(pa.binary()))[:, 0]


def _below(uris: pa.Array, root: str) -> pa.Array:
    prefix = encode(root.rstrip("/"))
    return pc.or_(
        pc.equal(uris, pa.scalar(prefix, pa.binary())), pc.starts_with(uris, prefix + b"/")
    )
