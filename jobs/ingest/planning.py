"""The plan of `ingest`: the listing against the catalogue, by uri, etag and metadata."""

import datetime
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.ingest.catalogue import read_catalogue, read_rejected
from jobs.ingest.comparing import Changes, Listing, compare
from jobs.ingest.inputs import InputMaker
from jobs.ingest.keys import Hasher
from jobs.ingest.roots import source_root
from schemas.errors import VanishedShareError
from schemas.plan import Counts, Plan, fingerprint, run_fingerprint, shard_bounds
from schemas.protocols import Store
from schemas.reasons import TRANSIENT
from schemas.specs.ingest import IngestSpec
from workers.pixels.decoder import DECODER_VERSION
from workers.pseudonyms import Pseudonymizer


def key(spec: IngestSpec) -> tuple[str, ...]:
    """A data set is catalogued by one run at a time."""
    return (spec.kind, spec.dataset)


def identity(spec: IngestSpec, content: bytes | None, check: str) -> dict[str, Any]:
    """All that decides what rows a run writes about a given archive.

    ``content`` is the metadata file, ``check`` tells the pseudonym key.
    """
    return {
        **spec.identity(),
        "metadata_content": None if content is None else fingerprint(content.hex()),
        "decoder": DECODER_VERSION,
        "key": check,
    }


def make_plan(
    spec: IngestSpec, store: Store, pseudonymizer: Pseudonymizer, content: bytes | None
) -> Plan:
    """Compare the archive with the catalogue.

    Raises:
        SourceError: if the archive can't be listed or the metadata file does not fit.
        VanishedShareError: if more than ``max_gone_share`` of the catalogued files is gone.
    """
    dataset, root, subject = spec.dataset, source_root(spec.source), _subject(spec)
    ident = identity(spec, content, pseudonymizer.check)
    check_facts = _is_new_definition(store, spec, ident)
    hasher = Hasher()
    catalogue = read_catalogue(store, dataset, root, pseudonymizer, hasher, with_facts=check_facts)
    rejected = hasher.keys(pa.array([], pa.binary()))
    if not spec.retry_rejects:
        rejected = read_rejected(store, subject, sorted(TRANSIENT), pseudonymizer, hasher)
    listing = Listing(spec, store)
    changes = compare(listing, catalogue, rejected, hasher, keep_all=check_facts)
    _check_vanished(spec, root, len(changes.gone), len(catalogue))
    maker = InputMaker(spec, store, dataset, pseudonymizer, hasher, content, catalogue, changes)
    rows, oddities = maker.make(check_facts=check_facts)
    corrected = rows.num_rows - changes.read.num_rows - len(changes.gone)
    wanted = pc.if_else(rows["read"], rows["bytes"], 0).to_pylist()
    return Plan(
        kind=spec.kind,
        name=spec.name,
        key=key(spec),
        identity=ident,
        params=_params(spec, dataset, subject, pseudonymizer, _seen_at(store, dataset)),
        inputs=rows,
        bounds=shard_bounds(
            wanted, images=spec.execution.shard_images, max_bytes=spec.execution.shard_bytes
        ),
        counts=Counts(up_to_date=changes.unchanged_count - corrected + changes.standing_count),
        facts=_findings(changes, corrected, {"left out by pattern": listing.left_out, **oddities}),
        unit="files",
    )


def _check_vanished(spec: IngestSpec, root: str, gone: int, catalogued: int) -> None:
    if gone > spec.max_gone_share * catalogued:
        raise VanishedShareError(
            "Most of the catalogued files are gone at once",
            where=root,
            got=f"{gone} of {catalogued} gone, at most {spec.max_gone_share:.0%} may be",
            remedy="check that the archive is mounted whole; if the files are gone for good, or "
            "left out by patterns as they should be, run once with `max_gone_share: 1`",
        )


def _is_new_definition(store: Store, spec: IngestSpec, ident: Mapping[str, Any]) -> bool:
    """Whether the last published run of this data set read its metadata otherwise."""
    last = store.last_run(key(spec))
    return last is None or last["fingerprint"] != run_fingerprint(spec.kind, ident)


def _seen_at(store: Store, dataset: str) -> datetime.datetime:
    """Now, but later than anything seen before: the latest row of a file is the one that holds."""
    rows = store.query(
        "SELECT max(seen_at) AS last FROM images WHERE dataset = $dataset", {"dataset": dataset}
    )
    last = rows["last"][0].as_py() if rows.num_rows else None
    now = datetime.datetime.now(datetime.UTC)
    return now if last is None else max(now, last + datetime.timedelta(microseconds=1))


def _subject(spec: IngestSpec) -> str:
    """What a reject of ingest is about: the decoders and the limits."""
    return fingerprint(
        {"decoder": DECODER_VERSION, "pixels": spec.max_pixels, "bytes": spec.max_bytes}
    )


def _params(
    spec: IngestSpec,
    dataset: str,
    subject: str,
    pseudonymizer: Pseudonymizer,
    seen_at: datetime.datetime,
) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "seen_at": seen_at.isoformat(),
        "modality": spec.modality,
        "subject": subject,
        "key_check": pseudonymizer.check,
        "numbering": spec.patients,
        "max_pixels": spec.max_pixels,
        "max_bytes": spec.max_bytes,
    }


def _findings(changes: Changes, corrected: int, others: Mapping[str, int]) -> dict[str, int]:
    changed = len(changes.read["catalogued"].drop_null())
    found = {
        "new files": changes.read.num_rows - changed,
        "changed files": changed,
        "corrected metadata": corrected,
        "gone files": len(changes.gone),
        "standing rejects": changes.standing_count,
        **others,
    }
    return {label: count for label, count in found.items() if count}
