"""What the lake knows of an archive: the present files, their facts, and the standing rejects."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from schemas.protocols import Store
from workers.pseudonyms import MARK, TOKEN, Pseudonymizer

FACTS = (
    *("patient_id", "age", "sex", "site", "view", "label", "split", "modality", "study_date"),
)  # fmt: skip
"""Columns of `images` that metadata can give."""


_KNOWN = """
SELECT * EXCLUDE (run_id) FROM (
    SELECT * FROM images
    WHERE dataset = $dataset AND uri IN (SELECT unnest($uris))
    QUALIFY row_number() OVER (PARTITION BY uri, frame ORDER BY seen_at DESC, run_id DESC) = 1
) WHERE state = 'present' ORDER BY uri, frame
"""

_REJECTED = """
SELECT DISTINCT uri, etag FROM rejects
WHERE stage = 'ingest' AND subject = $subject AND NOT list_contains($transient, reason)
"""

_ANY_PSEUDONYM = f"""
SELECT 1 AS one FROM images WHERE patient_id IS NOT NULL OR contains(uri, '{MARK}') LIMIT 1
"""

_STRETCH = 65_536
"""Uris that are revealed at once."""
_ONE_TOKEN = f"^(?P<before>[^~]*)(?P<token>{TOKEN})(?P<after>[^~]*)$"


@dataclass(frozen=True)
class Catalogue:
    """The present files of a data set below one root."""

    uris: pa.Array
    """Original uris as bytes: a file name need not be UTF-8."""
    rows: pa.Table
    """Columns `uri` (as catalogued) and `etag`; `format` and the facts where asked for."""


def read_catalogue(
    store: Store, dataset: str, root: str, pseudonymizer: Pseudonymizer, *, with_facts: bool
) -> Catalogue:
    """The files of ``dataset`` below ``root`` that were present when they were last seen."""
    columns = ("uri", "etag", *(("format", *FACTS) if with_facts else ()))
    rows = store.query(_present(columns), {"dataset": dataset})
    uris = reveal_all(rows["uri"], pseudonymizer)
    below = _below(uris, root)
    if pc.all(below).as_py():  # a million rows are not copied for nothing
        return Catalogue(uris, rows)
    return Catalogue(uris.filter(below), rows.filter(below))


def _present(columns: Sequence[str]) -> str:
    """The latest row of each file's first frame, if it says that the file is present.

    Nearly all files have one row. So one narrow pass finds the hashes of uris that occur again,
    and only their rows are ranked; ranking a million would hold every column in memory.
    """
    names = ", ".join(columns)
    return f"""
        WITH first_frames AS (SELECT * FROM images WHERE dataset = $dataset AND frame = 0),
        repeated AS (SELECT hash(uri) AS place FROM first_frames GROUP BY place HAVING count(*) > 1)
        SELECT {names} FROM first_frames
        WHERE hash(uri) NOT IN (SELECT place FROM repeated) AND state = 'present'
        UNION ALL
        SELECT {names} FROM (
            SELECT * FROM first_frames WHERE hash(uri) IN (SELECT place FROM repeated)
            QUALIFY row_number() OVER (PARTITION BY uri ORDER BY seen_at DESC, run_id DESC) = 1
        ) WHERE state = 'present'
    """


def read_known(store: Store, dataset: str, uris: pa.Array) -> pa.Table:
    """All present rows (frames) of files by their catalogued uris, in order of uri and frame."""
    return store.query(_KNOWN, {"dataset": dataset, "uris": uris.to_pylist()})


def read_rejected(
    store: Store, subject: str, transient: Sequence[str], pseudonymizer: Pseudonymizer
) -> pa.Array:
    """Uri and etag, joined by `version_keys`, of files whose reject still stands."""
    rows = store.query(_REJECTED, {"subject": subject, "transient": list(transient)})
    rows = rows.combine_chunks()
    return version_keys(reveal_all(rows["uri"], pseudonymizer), rows["etag"])


def has_pseudonyms(store: Store) -> bool:
    """Whether the lake holds pseudonyms already, so that a new key would contradict them."""
    return bool(store.query(_ANY_PSEUDONYM).num_rows)


def version_keys(uris: pa.Array, etags: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One value for a file in one state."""
    etags = flat(etags).cast(pa.binary())
    return pc.binary_join_element_wise(uris, pc.fill_null(etags, b""), b"\0")


def reveal_all(uris: pa.Array | pa.ChunkedArray, pseudonymizer: Pseudonymizer) -> pa.Array:
    """The original uris as bytes.

    Patients are fewer than files: a uri with one token is cut at it, and each token is read once.
    A stretch of uris at a time, because the pieces take several times the room of the uris.
    """
    parts = [_cut(part) for chunk in chunks_of(uris) for part in _stretches(chunk)]
    tokens = pc.unique(pa.chunked_array([one.tokens.dictionary for one in parts], pa.string()))
    texts = binary([pseudonymizer.open(one) for one in tokens.to_pylist()])
    whole = [pa.array([], pa.binary())]
    for part in parts:
        of_part = texts.take(pc.index_in(part.tokens.dictionary, value_set=tokens))
        whole.append(_join(part, of_part, pseudonymizer))
    return pa.concat_arrays(whole)


@dataclass(frozen=True)
class _Cut:
    """A stretch of uris, cut at the token of those that hold just one; null in the others."""

    uris: pa.Array
    before: pa.Array
    tokens: pa.DictionaryArray
    after: pa.Array


def _cut(uris: pa.Array) -> _Cut:
    pieces = pc.extract_regex(uris, _ONE_TOKEN)
    before, token, after = (pc.struct_field(pieces, name) for name in ("before", "token", "after"))
    return _Cut(uris, before.cast(pa.binary()), token.dictionary_encode(), after.cast(pa.binary()))


def _join(part: _Cut, texts: pa.Array, pseudonymizer: Pseudonymizer) -> pa.Array:
    """The original uris of a stretch; ``texts`` are what the tokens of its dictionary stand for."""
    found = texts.take(part.tokens.indices)
    joined = pc.binary_join_element_wise(part.before, found, part.after, b"")
    rest = pc.and_(pc.is_null(joined), pc.match_substring(part.uris, MARK))
    revealed = pc.coalesce(joined, part.uris.cast(pa.binary()))
    if not pc.any(rest).as_py():
        return revealed
    others = [encode(pseudonymizer.reveal(one)) for one in part.uris.filter(rest).to_pylist()]
    return pc.replace_with_mask(revealed, rest, pa.array(others, pa.binary()))


def chunks_of(values: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    """The arrays that a column consists of."""
    return values.chunks if isinstance(values, pa.ChunkedArray) else [values]


def _stretches(values: pa.Array) -> Iterator[pa.Array]:
    return (values.slice(at, _STRETCH) for at in range(0, len(values), _STRETCH))


def binary(texts: list[str]) -> pa.Array:
    """The bytes of many uris."""
    try:
        return pa.array(texts, pa.string()).cast(pa.binary())
    except UnicodeEncodeError:
        return pa.array([encode(one) for one in texts], pa.binary())


def encode(uri: str) -> bytes:
    """The bytes of a uri, also of one that is no UTF-8."""
    return uri.encode("utf-8", "surrogateescape")


def decode(uri: bytes) -> str:
    """The uri of these bytes."""
    return uri.decode("utf-8", "surrogateescape")


def flat(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array."""
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _below(uris: pa.Array, root: str) -> pa.Array:
    prefix = encode(root.rstrip("/"))
    tests = [
        pc.equal(uris, pa.scalar(prefix, pa.binary())),
        pc.starts_with(uris, prefix + b"/"),
    ]
    return reduce(pc.or_, tests)
