"""The kind `ingest`: catalogue what lies in an archive, reading only what is new or changed."""

from jobs.batch import run_batch
from jobs.ingest.catalogue import has_pseudonyms
from jobs.ingest.planning import identity, key, make_plan
from schemas.plan import Plan
from schemas.protocols import Pool, Report, Store
from schemas.specs.ingest import IngestSpec
from workers.pseudonyms import Pseudonymizer, key_file

__all__ = ["plan", "run"]


def plan(spec: IngestSpec, store: Store) -> Plan:
    """What a run would do; writes nothing, not even a pseudonym key.

    Raises:
        SourceError: if the archive can't be listed or the metadata file does not fit.
        VanishedShareError: if more than ``max_gone_share`` of the catalogued files is gone.
        KeyFileError: if the lake holds pseudonyms and their key is missing.
    """
    if key_file().exists() or has_pseudonyms(store):
        pseudonymizer = Pseudonymizer.from_key_file()
    else:
        pseudonymizer = Pseudonymizer.ephemeral()
    return make_plan(spec, store, pseudonymizer, _metadata_content(spec, store))


def run(spec: IngestSpec, pool: Pool, store: Store) -> Report:
    """Catalogue the archive; the first run of a lake makes the pseudonym key.

    Raises:
        SourceError: if the archive can't be listed or the metadata file does not fit.
        VanishedShareError: if more than ``max_gone_share`` of the catalogued files is gone.
        KeyFileError: if the lake holds pseudonyms and their key is missing.
    """
    # A new key beside old pseudonyms would give every patient a second one.
    may_create = not key_file().exists() and not has_pseudonyms(store)
    pseudonymizer = Pseudonymizer.from_key_file(create=may_create)
    content = _metadata_content(spec, store)
    return run_batch(
        spec,
        lambda: make_plan(spec, store, pseudonymizer, content),
        pool,
        store,
        key=key(spec),
        identity=identity(spec, content, pseudonymizer.check),
    )


def _metadata_content(spec: IngestSpec, store: Store) -> bytes | None:
    return store.read_source(spec.metadata.file) if spec.metadata else None
